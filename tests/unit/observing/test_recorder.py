from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.observing.assembly import Observing
from edge_agent.observing.queue import FOLD_ROWS
from edge_agent.observing.recorder import FOLD_S, REST_S
from edge_agent.observing.rows import unpack
from edge_agent.observing.store import StoreError
from edge_agent.ports import FeedbackItem, LoadedRelease, Recorder
from edgeloop.insights import Window, holdout_share
from tests.doubles.recording import record
from tests.unit.observing.doubles import CLASSES, LABELS, batch, profile, release


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Observing]]:
    made: list[Observing] = []

    def make(**options: Any) -> Observing:
        observing = Observing(tmp_path / "agent.db", **{"window_s": 60.0, **options})
        made.append(observing)
        return observing

    yield make
    for observing in made:
        observing.stop()


def answer(observing: Observing, loaded: LoadedRelease, name: str, rows: int = 1, seed: int = 0) -> None:
    inputs, outputs = batch(rows, seed)
    record(observing.recorder, loaded, name, inputs, outputs, 1_000_000)


def windows_of(observing: Observing) -> list[Window]:
    found = observing.store.rows("SELECT body FROM outbox ORDER BY row")
    return [unpack(body, profile().schema) for (body,) in found]


def check_ledger_equals_windows(observing: Observing) -> None:
    windows = windows_of(observing)
    for digest_, totals in observing.ledger.by_release().items():
        mine = [window for window in windows if window.release == digest_]
        for name in ("predictions", "errors", "feedback", "escalations"):
            assert totals[name] == sum(getattr(window, name) for window in mine), name
        assert totals["classes"] == sum(window.arrays["classes"] for window in mine).tolist()
        assert totals["windows"] == len(mine)


def wait_for(what: Callable[[], object], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.01)


def test_it_is_a_recorder(opened: Callable[..., Observing]) -> None:
    recorder: Recorder = opened().recorder
    assert list(recorder.wanted_outputs(release())) == ["scores", "features"]
    assert list(recorder.wanted_outputs(release(2, with_profile=False))) == []


def test_every_row_is_counted_once(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    for i in range(3 * FOLD_ROWS):
        answer(observing, loaded, f"one-{i}", seed=i)
    for i in range(20):
        answer(observing, loaded, f"many-{i}", rows=7, seed=i)
    observing.recorder.record_error(loaded)
    assert observing.recorder.flush()
    (window,) = windows_of(observing)
    assert (window.predictions, window.errors) == (3 * FOLD_ROWS + 140, 1)
    assert window.arrays["latency"].sum() == 3 * FOLD_ROWS + 140
    assert (window.release, window.variant, window.provider) == (loaded.digest, "cpu-fp32", "CPUExecutionProvider")
    assert window.end >= window.start > 1.6e9
    check_ledger_equals_windows(observing)


def test_classes_and_features_are_those_of_the_model(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    inputs, outputs = batch(50, 5)
    for i in range(50):
        row = {name: array[i : i + 1] for name, array in outputs.items()}
        record(observing.recorder, loaded, str(i), inputs[i : i + 1], row, 1)
    observing.recorder.flush()
    (window,) = windows_of(observing)
    expected = np.bincount(outputs["scores"].argmax(axis=1), minlength=CLASSES)
    np.testing.assert_array_equal(window.arrays["classes"], expected)
    np.testing.assert_allclose(
        window.arrays["feature_sum"], outputs["features"].sum(axis=0, dtype=np.float64), rtol=1e-6
    )


def test_aspects_that_are_not_wanted_take_no_room_and_the_ledger_counts_all(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    observing.policy.take({"aspects": ["latency"]})
    answer(observing, loaded, "a", rows=5)
    observing.recorder.flush()
    (window,) = windows_of(observing)
    assert {name.partition("_")[0] for name, array in window.arrays.items() if array.any()} == {
        "counts",
        "classes",
        "latency",
    }
    check_ledger_equals_windows(observing)


def test_an_empty_window_is_no_window(opened: Callable[..., Observing]) -> None:
    observing = opened(window_s=0.01)
    observing.start()
    time.sleep(0.5)
    assert observing.recorder.flush()
    assert observing.status().last_seq == 0


def test_a_window_says_how_the_device_was(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(checkpoint_s=0.1), release()
    observing.start()
    for i in range(30):
        answer(observing, loaded, str(i))
        time.sleep(0.02)
    observing.recorder.flush()
    (window,) = windows_of(observing)
    looks = window.arrays["health_samples"]
    assert 1 <= looks[0] <= 10
    assert 10e6 < window.arrays["health_sum"][0] / looks[0] < 10e9


def test_windows_close_on_the_timer_and_say_so(opened: Callable[..., Observing]) -> None:
    closed: list[int] = []
    observing, loaded = opened(window_s=0.3, closed=lambda: closed.append(1)), release()
    observing.start()
    answer(observing, loaded, "a")
    wait_for(lambda: observing.status().last_seq == 1)
    answer(observing, loaded, "b")
    wait_for(lambda: observing.status().last_seq == 2)
    wait_for(lambda: len(closed) == 2)
    assert [window.predictions for window in windows_of(observing)] == [1, 1]


def test_a_switch_closes_the_window_of_the_old_release(opened: Callable[..., Observing]) -> None:
    observing, old, new = opened(), release(1), release(2, variant="cpu-int8")
    observing.start()
    answer(observing, old, "a")
    answer(observing, new, "b")
    answer(observing, old, "straggler")  # it was in flight when the release was switched
    answer(observing, new, "c")
    wait_for(lambda: observing.status().last_seq == 1)
    (window,) = windows_of(observing)
    assert (window.release, window.predictions) == (old.digest, 2)
    observing.recorder.flush()
    assert [(window.release, window.predictions) for window in windows_of(observing)][1:] == [(new.digest, 2)]
    check_ledger_equals_windows(observing)


def test_going_back_to_an_earlier_release_opens_its_window_again(opened: Callable[..., Observing]) -> None:
    observing, old, new = opened(window_s=0.5), release(1), release(2)
    observing.start()
    for loaded in (old, new, old, old):
        answer(observing, loaded, "x")
        time.sleep(0.7)
    observing.recorder.flush()
    totals = observing.ledger.by_release()
    assert (totals[old.digest]["predictions"], totals[new.digest]["predictions"]) == (3, 1)


def test_two_variants_of_one_release_make_a_mixed_window(opened: Callable[..., Observing]) -> None:
    observing = opened()
    for variant in ("cpu-fp32", "cpu-int8"):
        loaded = release(1, variant=variant)
        answer(observing, loaded, variant)
        observing.recorder.feedback([])  # folds, while the release is still loaded
    observing.recorder.flush()
    (window,) = windows_of(observing)
    assert (window.variant, window.provider, window.predictions) == ("mixed", "CPUExecutionProvider", 2)


def test_a_release_without_a_profile_is_served_and_not_observed(opened: Callable[..., Observing]) -> None:
    observing = opened()
    answer(observing, release(1, with_profile=False), "a")
    observing.recorder.record_error(release(1, with_profile=False))
    assert observing.recorder.flush()
    assert observing.status().without_profile == 2
    assert observing.status().last_seq == 0


def test_one_odd_request_costs_itself_only(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    inputs, outputs = batch(1)
    for i in range(5):
        answer(observing, loaded, f"good-{i}")
    record(observing.recorder, loaded, "no features", inputs, {"scores": outputs["scores"]}, 1)
    record(observing.recorder, loaded, "odd shape", inputs, {**outputs, "scores": np.ones((1, 9), np.float32)}, 1)
    observing.recorder.record_error(loaded)
    observing.recorder.flush()
    assert observing.status().failed == 2
    assert (observing.ledger.totals()["predictions"], observing.ledger.totals()["errors"]) == (5, 1)


def test_rows_that_are_not_finite_are_counted_and_stay_out_of_the_sums(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    answer(observing, loaded, "good")
    inputs, outputs = batch(2)
    outputs["scores"][1] = np.nan
    record(observing.recorder, loaded, "bad", inputs, outputs, 1)
    observing.recorder.flush()
    (window,) = windows_of(observing)
    assert (window.predictions, window.nonfinite, int(window.arrays["classes"].sum())) == (3, 1, 2)


def test_arrays_that_are_views_are_read_as_they_are(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    inputs, outputs = batch(10)
    for i in range(0, 10, 2):  # columns in Fortran order, rows with gaps
        row = {"scores": outputs["scores"][i : i + 1], "features": np.asfortranarray(outputs["features"])[i : i + 1]}
        record(observing.recorder, loaded, str(i), inputs[i : i + 1, ::-1], row, 1)
    observing.recorder.flush()
    (window,) = windows_of(observing)
    assert window.predictions == 5
    np.testing.assert_allclose(window.arrays["feature_sum"], outputs["features"][::2].sum(axis=0), rtol=1e-5)


# -- labels ----------------------------------------------------------------------------------------------------------


def test_labels_end_in_exactly_one_part_of_the_result(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    answer(observing, loaded, "a")
    answer(observing, loaded, "b", rows=3)
    result = observing.recorder.feedback(
        [
            FeedbackItem("a", 2),
            FeedbackItem("a", 2),
            FeedbackItem("b", "west", 2),
            FeedbackItem("b", "east", 1),
            FeedbackItem("b", "up", 0),
            FeedbackItem("b", 4, 0),
            FeedbackItem("b", -1, 0),
            FeedbackItem("b", True, 0),
            FeedbackItem("b", 1, 3),
            FeedbackItem("never", 1),
        ]
    )
    assert result.accepted == 3
    assert list(result.duplicate) == ["a"]
    assert list(result.unknown) == ["never"]
    reasons = [reason for _, reason in result.invalid]
    assert [name for name, _ in result.invalid] == ["b"] * 5
    assert all(label in reasons[0] for label in LABELS)
    assert "0 … 3" in reasons[1]
    assert "bool" in reasons[3]
    assert "batch of 3" in reasons[4]
    observing.recorder.flush()
    (window,) = windows_of(observing)
    assert (window.predictions, window.feedback, int(window.arrays["confusion"].sum())) == (4, 3, 3)
    check_ledger_equals_windows(observing)


def test_labels_go_to_the_share_that_their_id_says(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    names = [f"p-{i}" for i in range(200)]
    for i, name in enumerate(names):
        answer(observing, loaded, name, seed=i)
    observing.recorder.feedback([FeedbackItem(name, 0) for name in names])
    observing.recorder.flush()
    (window,) = windows_of(observing)
    held = sum(holdout_share(name) for name in names)
    assert 20 < held < 90
    assert window.arrays["head_holdout_count"].sum() == held
    assert window.arrays["head_fit_count"].sum() == 200 - held


def test_a_late_label_counts_for_the_release_that_predicted(opened: Callable[..., Observing]) -> None:
    observing, old, new = opened(), release(1), release(2)
    answer(observing, old, "early")
    observing.recorder.flush()
    answer(observing, new, "now")
    assert observing.recorder.feedback([FeedbackItem("early", 1)]).accepted == 1
    observing.recorder.flush()
    totals = observing.ledger.by_release()
    assert (totals[old.digest]["feedback"], totals[new.digest]["feedback"]) == (1, 0)
    check_ledger_equals_windows(observing)


def test_labels_after_a_restart_count_once(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    answer(observing, loaded, "a")
    answer(observing, loaded, "b")
    assert observing.recorder.feedback([FeedbackItem("a", 1)]).accepted == 1
    observing.stop()

    known = {loaded.digest: profile()}
    again = opened(profile_of=known.get)
    assert not again.store.started_unclean
    result = again.recorder.feedback([FeedbackItem("a", 1), FeedbackItem("b", "north")])
    assert (result.accepted, list(result.duplicate)) == (1, ["a"])
    again.recorder.flush()
    assert again.ledger.totals()["feedback"] == 2
    check_ledger_equals_windows(again)
    again.stop()

    gone = opened()  # the release was collected meanwhile
    answer(gone, release(2), "other")
    result = gone.recorder.feedback([FeedbackItem("b", 0)])
    assert "no longer on this device" in result.invalid[0][1]


# -- the disk --------------------------------------------------------------------------------------------------------


def test_a_full_disk_costs_no_count(opened: Callable[..., Observing], monkeypatch: pytest.MonkeyPatch) -> None:
    observing, loaded = opened(), release()
    answer(observing, loaded, "a")
    pages = observing.store.rows("PRAGMA page_count")[0][0]
    observing.store.rows(f"PRAGMA max_page_count={pages}")  # what a full disk looks like to SQLite
    for i in range(400):
        answer(observing, loaded, f"b-{i}", rows=5, seed=i)
    assert not observing.recorder.flush()
    assert "disk" in observing.recorder.trouble
    assert observing.recorder.feedback([FeedbackItem("a", 1)]).accepted == 1
    assert not observing.recorder.flush()
    assert observing.ledger.totals()["predictions"] == 0
    observing.store.rows("PRAGMA max_page_count=1000000")
    answer(observing, loaded, "c")
    assert observing.recorder.flush()
    assert observing.recorder.trouble == ""
    assert (observing.ledger.totals()["predictions"], observing.ledger.totals()["feedback"]) == (2002, 1)
    check_ledger_equals_windows(observing)


def test_a_stop_that_could_not_write_counts_as_unclean(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(), release()
    answer(observing, loaded, "a")

    def refuse(*_: object) -> None:
        raise StoreError("no space")

    observing.recorder._keeper.write = refuse  # type: ignore[method-assign]
    observing.stop()
    again = opened()
    assert again.store.started_unclean
    assert again.status().unclean_restarts == 1


def test_the_thread_rests_only_when_all_is_written(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(checkpoint_s=3600.0), release()
    recorder = observing.recorder
    assert recorder._patience_s() == REST_S
    answer(observing, loaded, "one")
    recorder.put_away()
    assert recorder._patience_s() == FOLD_S, "it waits for its checkpoint"
    recorder._checkpoint_due = 0.0
    assert recorder.put_away()
    assert recorder._patience_s() == REST_S
    assert observing.store.rows("SELECT count(*) FROM open_window") == [(1,)]
    recorder.feedback([FeedbackItem("one", 0)])
    assert recorder._patience_s() == FOLD_S


def test_a_rest_is_no_longer_than_half_of_what_may_be_lost(opened: Callable[..., Observing]) -> None:
    assert opened(checkpoint_s=0.8).recorder._patience_s() == 0.4


def test_a_checkpoint_is_recovered_as_a_closed_window(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(checkpoint_s=0.1), release()
    observing.start()
    answer(observing, loaded, "a", rows=9)
    wait_for(lambda: observing.store.rows("SELECT 1 FROM open_window"))
    observing.recorder._stopping = True
    observing.recorder._thread.join()
    observing.store.close(clean=False)  # killed: the open window is in the checkpoint only

    again = opened(profile_of={loaded.digest: profile()}.get)
    assert again.store.started_unclean
    assert again.recorder.recovered_windows == 1
    assert again.ledger.totals()["predictions"] == 9
    assert again.recorder.feedback([FeedbackItem("a", 1, index=8)]).accepted == 1
    check_ledger_equals_windows(again)


# -- the clock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [0.0, -5.0, 4e9], ids=["1970", "before 1970", "2096"])
def test_a_wrong_clock_changes_no_count(
    opened: Callable[..., Observing], monkeypatch: pytest.MonkeyPatch, clock: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: clock)
    observing, loaded = opened(window_s=0.2), release()
    assert observing.store.epoch > 0
    observing.start()
    answer(observing, loaded, "a")
    wait_for(lambda: observing.status().last_seq == 1)
    monkeypatch.setattr(time, "time", lambda: clock - 1e6)  # and it jumps back
    answer(observing, loaded, "b")
    wait_for(lambda: observing.status().last_seq == 2)
    first, second = windows_of(observing)
    assert first.end == clock and first.start <= first.end
    assert second.end >= second.start
    check_ledger_equals_windows(observing)


def test_requests_of_many_threads_are_all_counted(opened: Callable[..., Observing]) -> None:
    observing, loaded = opened(window_s=0.3, checkpoint_s=0.1), release()
    observing.start()
    inputs, outputs = batch(1)

    def client(number: int) -> None:
        for i in range(2000):
            record(observing.recorder, loaded, f"{number}-{i}", inputs, outputs, 1)
            if i % 100 == 0:
                observing.recorder.feedback([FeedbackItem(f"{number}-{i}", 0)])

    threads = [threading.Thread(target=client, args=(n,), name=f"client {n}") for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    observing.recorder.flush()
    totals = observing.ledger.totals()
    assert (totals["predictions"], totals["feedback"]) == (12_000, 120)
    check_ledger_equals_windows(observing)
