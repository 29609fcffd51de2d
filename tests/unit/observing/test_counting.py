"""What goes wrong while requests are counted costs no other request, is counted itself, and takes no memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.observing.assembly import Observing
from edge_agent.observing.observers import Observers
from edge_agent.observing.queue import FOLD_BYTES, Queue
from edge_agent.observing.releases import KnownReleases
from edge_agent.observing.scores import BLOCK_REQUESTS
from edge_agent.observing.watch import Watches
from edge_agent.ports import FeedbackItem
from edgeloop.insights import Profile
from tests.doubles.recording import record
from tests.unit.observing.doubles import CLASSES, WIDTH, batch, release

PLACES = {"scores": 0, "features": 1}


@pytest.fixture
def observing(tmp_path: Path) -> Iterator[Observing]:
    made = Observing(tmp_path / "agent.db")
    yield made
    made.stop()


def test_scores_of_an_odd_form_cost_no_other_request_and_are_counted_as_failed(observing: Observing) -> None:
    recorder, loaded = observing.recorder, release()
    inputs, outputs = batch(1)
    odd = np.ones((1, CLASSES + 1), np.float32)
    for number, scores in enumerate((outputs["scores"], odd, odd, outputs["scores"])):
        recorder.record_scores(loaded, f"s{number}", scores, "", 1000, 900)
    recorder.record(loaded, "whole", inputs, list(outputs.values()), PLACES, "", 1000, 900)
    recorder.record_error(loaded)
    assert recorder.flush()
    totals = observing.ledger.totals()
    assert (totals["predictions"], totals["errors"], recorder.unobserved().failed) == (3, 1, 2)
    assert recorder.feedback([FeedbackItem(f"s{number}", 0) for number in range(4)]).unknown == ["s1", "s2"]


def test_an_image_that_does_not_fit_has_no_other_counted_twice(observing: Observing) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((60, 3, 16, 16)).astype(np.float32)
    _, outputs = batch(60)
    loaded = replace(release(), profile=Profile.fit(images, outputs["scores"], outputs["features"]))
    _, outputs = batch(1)
    for number, size in enumerate(((3, 16, 16), (3, 8, 8), (16, 16), (3, 16, 16))):
        image = rng.random((1, *size)).astype(np.float32)
        observing.recorder.record(loaded, f"p{number}", image, list(outputs.values()), PLACES, "", 1000, 900)
    assert observing.recorder.flush()
    assert (observing.ledger.totals()["predictions"], observing.recorder.unobserved().failed) == (3, 1)
    assert observing.recorder.kept_predictions == 3


def test_an_unforeseen_error_while_windows_are_written_costs_no_count(
    observing: Observing, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, outputs = batch(5)
    record(observing.recorder, release(), "a", inputs, outputs, 1000)
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise ZeroDivisionError("unforeseen")

        broken.setattr(observing.recorder._keeper, "write", fail)
        with pytest.raises(ZeroDivisionError):
            observing.recorder.flush()
    assert observing.recorder.feedback([FeedbackItem("a", 1)]).accepted == 1
    assert observing.recorder.flush()
    totals = observing.ledger.totals()
    assert (totals["predictions"], totals["feedback"], totals["windows"]) == (5, 1, 1)


def test_wide_outputs_are_counted_sooner_so_that_few_wait() -> None:
    queue, loaded = Queue(1e9), release()
    scores, features = np.ones((1, CLASSES), np.float32), np.ones((1, 25_088), np.float32)
    for number in range(8):
        queue.record(loaded, str(number), np.ones((1, WIDTH), np.float32), [scores, features], PLACES, "", 1, 1)
    assert len(queue.take()) == 8 and not queue
    assert queue.fold_at * features.nbytes <= FOLD_BYTES


def test_requests_wait_when_scores_alone_come_faster_than_they_are_counted(observing: Observing) -> None:
    recorder, loaded = observing.recorder, release()
    scores = batch(1)[1]["scores"]
    asked: list[bool] = []

    class Held:
        """A lock that another thread holds; what is counted is none of this test."""

        def acquire(self, blocking: bool) -> bool:
            asked.append(blocking)
            return False

    real, recorder._windows_lock = recorder._windows_lock, Held()  # type: ignore[assignment]
    try:
        for most in (BLOCK_REQUESTS, 32 * BLOCK_REQUESTS):
            while len(recorder._queue.scores) < most:
                recorder.record_scores(loaded, "", scores, "", 1000, 900)
            recorder.settle()
    finally:
        recorder._windows_lock = real
    assert asked == [False, True]


def test_a_release_that_is_loaded_while_another_one_is_is_watched_as_well(observing: Observing) -> None:
    watches = Watches(KnownReleases(observing.store), Observers(lambda _: None))
    one, other = release(1), release(2)
    beside = threading.Thread(target=watches.of, args=(other,))

    def loaded() -> object:
        """Asked whether an old release is still there: in this very moment another thread brings a new one."""
        if beside.ident is None:
            beside.start()
            beside.join(0.5)
        return watches

    watches._watches["old"] = SimpleNamespace(loaded=loaded)  # type: ignore[assignment]
    assert watches.of(one) is not None
    beside.join(30.0)
    assert one.digest in watches and other.digest in watches
