"""A hub, or whoever stands before it, lies to a publisher, who signs nothing on what the own root does not say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from edgeloop.trust import checking, keys, repository
from model_export.errors import HubUnreachableError, UntrustedError
from model_export.hub import MAX_ANSWER_BYTES
from tests.doubles.secure_fleet import SecureFleet
from tests.unit.export.publisher import Publisher
from tests.unit.export.small_hub import SmallHub

ROLE = "releases.digits"


@pytest.fixture
def fleet() -> SecureFleet:
    return SecureFleet.make("digits", "words")


@pytest.fixture
def hub(fleet: SecureFleet) -> Iterator[SmallHub]:
    with SmallHub(fleet).running() as server:
        yield server


@pytest.fixture
def alice(hub: SmallHub, fleet: SecureFleet, tmp_path: Path) -> Publisher:
    return Publisher(hub, tmp_path / "alice", fleet.publishers["digits"])


def test_with_a_root_of_its_own(hub: SmallHub, alice: Publisher):
    evil = SecureFleet.make("digits")
    evil.publishers["digits"] = alice.signers[0]
    hub.fleet = evil
    alice.refused(UntrustedError, "targets 1 has 0 of the 1 signatures")


def test_with_a_next_root_that_nobody_signed(hub: SmallHub, alice: Publisher, fleet: SecureFleet):
    evil = SecureFleet()
    draft = repository.draft(fleet.root, "root", now=fleet.now)
    repository.set_keys(draft.signed, "targets", [evil.targets_key.public_key], 1)
    fleet.files["2.root.json"] = repository.sign(draft, evil.root_key).to_bytes()
    alice.refused(UntrustedError, "root 2 has 0 of the 1 signatures")


def test_with_releases_that_no_publisher_signed(alice: Publisher, fleet: SecureFleet):
    draft = fleet.draft(ROLE)
    repository.add_release(draft.signed, "digits", "sha256:" + "e" * 64, 10)
    fleet.put(ROLE, draft, keys.generate())
    alice.refused(UntrustedError, "its keys have changed since")


def test_with_expired_targets(alice: Publisher, fleet: SecureFleet):
    fleet.now -= timedelta(days=400)
    fleet.put("targets", fleet.draft("targets"))
    alice.refused(UntrustedError, "targets 2 expired on")


def test_with_older_targets_than_the_folder_has(alice: Publisher, fleet: SecureFleet):
    old = fleet.newest["targets"]
    fleet.put("targets", fleet.draft("targets"))
    alice.folder.write_bytes("targets", 2, fleet.files["2.targets.json"])
    fleet.newest["targets"] = old
    alice.refused(UntrustedError, "has targets 1, and .* has 2 already")


def test_with_anything_but_an_answer(hub: SmallHub, alice: Publisher):
    hub.refuse = {"GET /api/v1/trust": (200, {"signed": "maybe"})}
    alice.refused(UntrustedError, "no hub of a fleet")
    hub.refuse = {"GET /api/v1/trust": (404, {})}
    alice.refused(HubUnreachableError, "not as a hub")
    hub.refuse = {"GET /tuf/1.targets.json": (404, {})}
    alice.refused(UntrustedError, "has no targets")
    hub.refuse = {"GET /tuf/1.targets.json": (200, {"signed": {}})}
    alice.refused(UntrustedError, "is no metadata of TUF")


def test_with_numbers_that_are_none(hub: SmallHub, alice: Publisher):
    state = hub.state()
    hub.refuse = {"GET /api/v1/trust": (200, state | {"versions": {"targets": -1}})}
    alice.refused(UntrustedError, "the number -1")


def test_with_metadata_larger_than_any(alice: Publisher, fleet: SecureFleet):
    fleet.files["1.targets.json"] = b"[" * (checking.MAX_BYTES + 1)
    alice.refused(UntrustedError, f"at most {checking.MAX_BYTES} are read")
    fleet.files["1.targets.json"] = b" " * (MAX_ANSWER_BYTES + 1)
    alice.refused(HubUnreachableError, "and no end")


def test_with_an_answer_that_never_ends(hub: SmallHub, alice: Publisher, monkeypatch: pytest.MonkeyPatch):
    """One byte now and then: the whole has a time limit, not the single byte."""
    monkeypatch.setattr("model_export.hub.ANSWER_S", 0.05)
    hub.drip = True
    alice.refused(HubUnreachableError, "and no end")
