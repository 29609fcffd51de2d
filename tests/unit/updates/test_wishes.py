"""What comes while an update is under way, and at the very moment at which one begins, is not overlooked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.updates.fetch import FetchLimits
from edge_agent.updates.probation import ProbationRules
from edge_agent.updates.rules import Offer
from edge_agent.updates.settings import UpdateSettings
from edge_agent.updates.store import UpdateStore
from edge_agent.updates.testing import TestingRules
from edge_agent.updates.wishes import Wishes
from edgeloop.protocol import ChannelDocument
from edgeloop.protocol.messages import ReleaseRef


def document(serial: int, release: int) -> ChannelDocument:
    current = ReleaseRef(f"sha256:{release:064x}", "digits", f"1.{release}", 1000)
    return ChannelDocument(channel="stable", serial=serial, current=current)


@pytest.fixture
def wishes(tmp_path: Path) -> Wishes:
    settings = UpdateSettings(
        tmp_path, "device", "", FetchLimits(1 << 20, 0), TestingRules(), ProbationRules(1.0, 0, 1.0)
    )
    return Wishes(settings, UpdateStore(tmp_path / "updates.db"), serves=lambda: True)


def test_a_document_that_comes_while_an_offer_is_taken_interrupts_it(
    wishes: Wishes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes.follow(document(1, 1))
    really = wishes.offered.wanted

    def overtaken(*arguments: Any, **named: Any) -> Offer | None:
        found = really(*arguments, **named)
        wishes.follow(document(2, 2))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(wishes.offered, "wanted", overtaken)
        offer = wishes.take_offer()
    assert offer is not None and offer.version == "1.1"
    assert wishes.interrupted(0.0, offer)
    again = wishes.take_offer()
    assert again is not None and again.version == "1.2" and not wishes.interrupted(0.0, again)


def test_an_offer_is_turned_away_with_the_document_that_made_it_and_no_later_one(wishes: Wishes) -> None:
    wishes.follow(document(1, 1))
    offer = wishes.take_offer()
    assert offer is not None
    wishes.turn_away(offer)
    assert wishes.take_offer() is None
    wishes.follow(document(2, 1))
    offer = wishes.take_offer()
    assert offer is not None
    wishes.follow(document(3, 1))  # it may have been signed meanwhile
    wishes.turn_away(offer)
    assert wishes.take_offer() == offer


def test_other_settings_a_person_and_the_end_interrupt(wishes: Wishes) -> None:
    wishes.follow(document(1, 1))
    offer = wishes.take_offer()
    assert offer is not None and not wishes.interrupted(0.0, offer)
    wishes.use(UpdateSettings(**vars(wishes.settings)))
    assert wishes.interrupted(0.0, offer)
    assert wishes.take_offer() == offer and not wishes.interrupted(0.0, offer)
    wishes.go_back(None, "it is wrong")
    assert wishes.interrupted(0.0, offer) and wishes.asked.take() is not None
    wishes.stop()
    assert wishes.interrupted(0.0, offer) and wishes.stopping
