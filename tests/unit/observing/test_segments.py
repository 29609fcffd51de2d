"""Segments: few names, the same over restarts, whatever clients send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.observing.assembly import Observing
from edge_agent.observing.rows import unpack
from edge_agent.observing.segments import Segments
from edge_agent.observing.store import Store
from edge_agent.ports import FeedbackItem
from edgeloop.insights.policy import InsightsPolicy
from tests.doubles.recording import record
from tests.unit.observing.doubles import batch, profile, release


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "agent.db")
    yield made
    made.close(clean=True)


def segments(store: Store, **policy: Any) -> Segments:
    made = Segments(store)
    made.follow(InsightsPolicy(**policy))
    return made


def test_the_first_values_get_names_and_keep_them_over_restarts(store: Store) -> None:
    first = segments(store, segment_field="line")
    assert [first.of({"line": number}) for number in range(8)] == [str(number) for number in range(8)]
    assert first.of({"line": 8}) == first.of({"line": "new"}) == "other"
    again = segments(store, segment_field="line")
    assert again.of({"line": "new"}) == "other" and again.of({"line": "3"}) == again.of({"line": 3}) == "3"
    assert segments(store, segment_field="shift").of({"shift": "new"}) == "new", "each field has its own"


def test_values_that_the_policy_names_are_the_only_ones(store: Store) -> None:
    named = segments(store, segment_field="line", segment_values=("a", "b"))
    assert [named.of({"line": value}) for value in "abc"] == ["a", "b", "other"]
    named.follow(InsightsPolicy(segment_field="line", segment_values=("c",)))
    assert [named.of({"line": value}) for value in "abc"] == ["other", "other", "c"]


def test_a_request_without_the_parameter_is_in_no_segment(store: Store) -> None:
    assert segments(store, segment_field="line").of({"camera": "a"}) == ""
    assert segments(store).field is None


@pytest.mark.parametrize("value", ["", " padded", "a\nb", "ä", "x" * 65, [1], {"a": 1}, "\0", 1e400 - 1e400])
def test_what_is_no_name_is_among_the_others(store: Store, value: Any) -> None:
    made = segments(store, segment_field="line")
    assert made.of({"line": value}) in ("other", "nan")


def test_clients_cannot_make_it_grow(store: Store) -> None:
    made = segments(store, segment_field="line")
    for number in range(5000):
        made.of({"line": f"value {number}"})
    assert len(made._names) == 8


def test_rows_errors_and_labels_count_in_the_window_of_their_segment(tmp_path: Path) -> None:
    observing, loaded = Observing(tmp_path / "agent.db"), release()
    observing.policy.take({"segment_field": "camera"})
    recorder = observing.recorder
    assert recorder.segment_field == "camera"
    for number in range(60):
        inputs, outputs = batch(2, number)
        segment = recorder.segment_of({"camera": "ab"[number % 2]})
        if number % 3:
            record(recorder, loaded, f"p{number}", inputs, outputs, 1000, segment)
        else:
            recorder.record_scores(loaded, f"p{number}", outputs["scores"], segment, 1000, 900)
    recorder.record_error(loaded, "b")
    assert recorder.feedback([FeedbackItem(f"p{number}", 1) for number in range(0, 20, 2)]).accepted == 10
    recorder.flush()

    def found() -> dict[str, tuple[int, int, int]]:
        rows = observing.store.rows("SELECT segment, body FROM outbox")
        windows = {segment: unpack(body, profile().schema) for segment, body in rows}
        assert all(window.segment == segment for segment, window in windows.items())
        return {segment: (w.predictions, w.errors, w.feedback) for segment, w in windows.items()}

    assert found() == {"a": (60, 0, 10), "b": (60, 1, 0)}
    observing.stop()
    # A label that comes after a restart still finds the segment of its prediction.
    observing = Observing(tmp_path / "agent.db", profile_of={loaded.digest: profile()}.get)
    with observing.store.transaction() as db:
        db.execute("DELETE FROM outbox")
    assert observing.recorder.feedback([FeedbackItem("p21", 1), FeedbackItem("p22", 2)]).accepted == 2
    observing.recorder.flush()
    assert found() == {"a": (0, 0, 1), "b": (0, 0, 1)}
    observing.stop()


def test_an_open_window_of_each_segment_outlives_a_kill(tmp_path: Path) -> None:
    observing, loaded = Observing(tmp_path / "agent.db", checkpoint_s=0.0), release()
    inputs, outputs = batch(3)
    for segment in ("a", "b", ""):
        record(observing.recorder, loaded, segment, inputs, outputs, 1, segment)
    assert observing.recorder.put_away()
    observing.store.close(clean=False)
    again = Observing(tmp_path / "agent.db")
    assert again.recorder.recovered_windows == 3
    assert again.store.rows("SELECT segment, predictions FROM outbox ORDER BY segment") == [("", 3), ("a", 3), ("b", 3)]
    assert again.ledger.totals()["predictions"] == 9
    again.stop()


def test_a_switch_is_seen_in_the_order_in_which_it_came_whatever_the_segments(tmp_path: Path) -> None:
    observing, old, new = Observing(tmp_path / "agent.db"), release(1), release(2)
    inputs, outputs = batch(1)
    observing.recorder.record_scores(old, "o", outputs["scores"], "b", 1000, 900)
    observing.recorder.record_scores(new, "n", outputs["scores"], "a", 1000, 900)
    record(observing.recorder, old, "straggler", inputs, outputs, 1, "b")
    record(observing.recorder, new, "m", inputs, outputs, 1, "a")
    observing.recorder.feedback([])
    busy = observing.recorder._windows.busy()
    assert busy is not None and busy.release == new.digest
    observing.stop()
