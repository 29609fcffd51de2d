"""The process that verifies for a device: kept for a while after it has answered, and no longer than it is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edge_agent.ports import Untrusted
from edge_agent.trust import asking
from edge_agent.trust.anchor import Anchor
from edge_agent.trust.asking import Examiner, Question
from edgeloop.protocol import ChannelDocument, SignedChannel
from tests.doubles.secure_fleet import SecureFleet
from tests.integration.hub_process import wait_for

NOBODY = "http://127.0.0.1:9"
FOR_LONG, FOR_A_MOMENT = 600.0, 0.2


@pytest.fixture(scope="module")
def sealed() -> tuple[SecureFleet, SignedChannel]:
    fleet = SecureFleet.make("digits")
    return fleet, fleet.channel(ChannelDocument("stable", 1, None, None, NOBODY))


@pytest.fixture
def made(tmp_path: Path, sealed: tuple[SecureFleet, SignedChannel]) -> Iterator[Callable[..., Examiner]]:
    examiners: list[Examiner] = []

    def make(kept_s: float = FOR_LONG) -> Examiner:
        anchor = Anchor(sealed[0].pinned, 0.0)
        examiners.append(Examiner(anchor, tmp_path / "cache", limits={"tries": 1}, kept_s=kept_s))
        return examiners[-1]

    yield make
    for examiner in examiners:
        examiner.stop()


@pytest.fixture
def question(sealed: tuple[SecureFleet, SignedChannel]) -> Question:
    return Question(("channels/stable",), sealed[1].metadata)


@pytest.fixture
def children() -> Callable[[], list[int]]:
    """Processes that this test has started, also those that have ended and that nobody waited for."""

    def now() -> set[int]:
        return {child.pid for child in psutil.Process().children()}

    before = now()
    return lambda: sorted(now() - before)


def test_documents_in_company_are_verified_by_one_process(
    made: Callable[..., Examiner], question: Question, children: Callable[[], list[int]]
) -> None:
    examiner = made()
    first = examiner.examine(question, NOBODY)
    asked = children()
    assert len(asked) == 1
    assert examiner.examine(question, NOBODY).named == first.named
    assert children() == asked
    # It was killed, by a kernel that wanted memory: another one answers.
    psutil.Process(asked[0]).kill()
    wait_for(lambda: psutil.Process(asked[0]).status() == psutil.STATUS_ZOMBIE, 10, "its end")
    assert examiner.examine(question, NOBODY).named == first.named
    assert len(children()) == 1
    assert children() != asked
    examiner.stop()
    assert not children()
    with pytest.raises(Untrusted, match="the agent stops"):
        examiner.examine(question, NOBODY)


def test_a_quiet_device_has_none(
    made: Callable[..., Examiner], question: Question, children: Callable[[], list[int]]
) -> None:
    assert made(FOR_A_MOMENT).examine(question, NOBODY).named
    wait_for(lambda: not children(), 20, "the end of a child that is asked nothing")


def test_what_saw_a_document_that_was_refused_sees_no_other(
    made: Callable[..., Examiner], question: Question, children: Callable[[], list[int]]
) -> None:
    examiner = made()
    timestamp = question.metadata["timestamp.json"]
    forged = replace(question, metadata={**question.metadata, "timestamp.json": timestamp.replace(b"1", b"2")})
    with pytest.raises(Untrusted):
        examiner.examine(forged, NOBODY)
    assert not children()
    assert examiner.examine(question, NOBODY).named


def test_one_that_takes_too_long_is_ended(
    made: Callable[..., Examiner],
    question: Question,
    children: Callable[[], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examiner = made()
    monkeypatch.setattr(asking, "LONGEST_S", 0.01)  # no process starts in that time
    with pytest.raises(Untrusted, match="took longer"):
        examiner.examine(question, NOBODY)
    assert not children()
    monkeypatch.undo()
    assert examiner.examine(question, NOBODY).named


def test_one_that_breaks_is_ended_with_its_last_words(
    made: Callable[..., Examiner],
    question: Question,
    children: Callable[[], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examiner = made()
    monkeypatch.setattr(asking.sys, "executable", "/bin/false")
    with pytest.raises(Untrusted, match="ended with status 1 and no verdict"):
        examiner.examine(question, NOBODY)
    assert not children()
