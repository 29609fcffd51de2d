"""On a busy device everything is counted, and a random share is observed in full."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.observing import queue
from edge_agent.observing.assembly import Observing
from edge_agent.observing.rows import unpack
from edge_agent.observing.thinning import STEPS, Thinning
from edge_agent.ports import FeedbackItem
from edgeloop.insights import Observer, Window
from tests.unit.observing.doubles import CLASSES, batch, profile, release

PLACES = {"scores": 0, "features": 1}


def test_the_share_follows_the_rate_and_falls_slowly() -> None:
    thinning = Thinning(1000.0)
    thinning.look(100.0)
    assert thinning.share == STEPS
    assert all(thinning.draw() for _ in range(3000))
    thinning.seen(4000)
    thinning.look(101.0)
    assert thinning.share == STEPS // 4
    drawn = sum(thinning.draw() for _ in range(10_240))
    assert 0.2 < drawn / 10_240 < 0.3
    thinning.look(102.0)
    assert thinning.share == STEPS // 2, "half of the old rate"
    thinning.look(103.0)
    assert thinning.share == STEPS


def test_a_tiny_share_is_not_nothing() -> None:
    thinning = Thinning(1.0)
    thinning.look(10.0)
    thinning.seen(10**9)
    thinning.look(11.0)
    assert thinning.share == 1


def test_every_row_counts_and_its_input_only_when_it_is_observed_in_full(tmp_path) -> None:  # type: ignore[no-untyped-def]
    observing = Observing(tmp_path / "agent.db")
    observing.start()
    loaded = release()
    inputs, outputs = batch(600)
    for i in range(600):
        scores, features = outputs["scores"][i : i + 1], outputs["features"][i : i + 1]
        if i % 3:
            observing.recorder.record_scores(loaded, f"p{i}", scores, "", 1000, 900)
        else:
            observing.recorder.record(loaded, f"p{i}", inputs[i : i + 1], [scores, features], PLACES, "", 1000, 900)
    top = outputs["scores"].argmax(axis=1)
    labels = [FeedbackItem(f"p{i}", int((top[i] + 1) % CLASSES)) for i in range(300)]
    assert observing.recorder.feedback(labels).accepted == 300
    observing.recorder.flush()
    found = [unpack(body, profile().schema) for (body,) in observing.store.rows("SELECT body FROM outbox")]
    arrays = found[0].arrays
    assert len(found) == 1
    assert (found[0].predictions, found[0].feedback) == (600, 300)
    assert (arrays["classes"] == np.bincount(top, minlength=CLASSES)).all()
    assert arrays["confidence"].sum() == arrays["latency"].sum() == 600
    assert set(arrays["inputs"].sum(axis=1)) == set(arrays["projections"].sum(axis=1)) == {200}
    assert np.allclose(arrays["feature_sum"], outputs["features"][::3].astype(np.float64).sum(axis=0))
    assert arrays["confusion"].sum() == 300
    observing.stop()
    again = Observing(tmp_path / "agent.db", profile_of=lambda digest: profile())
    assert again.recorder.kept_predictions == 600, "both kinds are read again"
    assert again.recorder.feedback([FeedbackItem("p301", 0), FeedbackItem("p303", 0)]).accepted == 2
    again.stop()


def test_of_wide_inputs_a_share_is_summarised_and_all_else_is_of_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observing = Observing(tmp_path / "agent.db")
    loaded = release()
    inputs, outputs = batch(600)
    drawn = (i % 4 == 0 for i in range(600))
    monkeypatch.setattr(queue, "WIDE_VALUES", 0)
    monkeypatch.setattr(observing.recorder._queue._wide, "draw", lambda: next(drawn))
    for i in range(600):
        found = [outputs["scores"][i : i + 1], outputs["features"][i : i + 1]]
        observing.recorder.record(loaded, f"p{i}", inputs[i : i + 1], found, PLACES, "", 1000, 900)
    observing.recorder.flush()
    ((body,),) = observing.store.rows("SELECT body FROM outbox")
    window = unpack(body, profile().schema)
    arrays = window.arrays
    assert window.predictions == arrays["confidence"].sum() == arrays["latency"].sum() == 600
    assert set(arrays["inputs"].sum(axis=1)) == {150}
    assert set(arrays["projections"].sum(axis=1)) == {600}
    only = Window.zero(profile().schema)
    Observer(profile()).observe(only, inputs[::4], outputs["scores"][::4], None, np.zeros(150, np.int64))
    assert (only.arrays["inputs"] == arrays["inputs"]).all(), "those whose turn it was"
    observing.stop()
