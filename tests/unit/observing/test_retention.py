from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from edge_agent.observing.chunks import CHUNK_ROWS, Batch, Found
from edge_agent.observing.retention import Retention
from edge_agent.observing.store import Store
from edge_agent.ports import Chosen
from tests.unit.observing.doubles import digest


def batch(ids: list[str], rows_each: int = 1, features: int | None = 3) -> Batch:
    rows = len(ids) * rows_each
    return Batch(
        ids=ids,
        counts=np.full(len(ids), rows_each, dtype=np.int64),
        predicted=np.arange(rows) % 7,
        confidence=np.linspace(0, 1, rows),
        features=None if features is None else np.arange(rows * features, dtype=np.float32).reshape(rows, features),
    )


def checkpoint(retention: Retention, store: Store) -> None:
    changes = retention.prepare()
    with store.transaction() as db:
        changes.write(db)
    retention.written(changes)


def found(retention: Retention, name: str, row: int = 0) -> Found:
    prediction = retention.find(name, row)
    assert isinstance(prediction, Found)
    return prediction


def test_rows_of_a_batch_are_found_by_id_and_index() -> None:
    retention = Retention(100)
    retention.add(digest(1), batch(["a", "b"], rows_each=3))
    assert found(retention, "b", 1).predicted == 4
    np.testing.assert_array_equal(found(retention, "b", 1).features, [12, 13, 14])
    assert retention.find("c", 0) is None
    assert "outside" in str(retention.find("b", 3))
    assert "outside" in str(retention.find("b", -1))


def test_the_oldest_go_and_at_least_keep_rows_stay() -> None:
    retention = Retention(2000)
    for start in range(0, 6000, 100):
        retention.add(digest(1), batch([str(i) for i in range(start, start + 100)]))
    assert 2000 <= retention.rows <= 2000 + CHUNK_ROWS
    assert retention.find("0", 0) is None
    assert found(retention, "5999").release == digest(1)
    assert all(retention.find(str(i), 0) is not None for i in range(4000, 6000))
    assert sum(retention.find(str(i), 0) is not None for i in range(6000)) == retention.rows


def test_wide_features_are_bounded_in_bytes() -> None:
    retention = Retention(1 << 20)
    for start in range(0, 20_000, 500):
        retention.add(digest(1), batch([str(i) for i in range(start, start + 500)], features=1280))
    assert retention._bytes < 40 << 20
    assert retention.find("19999", 0) is not None


def test_very_wide_features_are_bounded_too_and_a_chunk_of_them_is_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    retention = Retention(8192)
    for start in range(0, 1000, 20):
        retention.add(digest(1), batch([str(i) for i in range(start, start + 20)], features=25_088))
        assert sum(len(body) for _, body, _ in retention.prepare().fresh) < 50 << 20
    assert retention._bytes < 40 << 20
    checkpoint(retention, store)
    retention.add(digest(1), batch(["last"], features=25_088))
    (written,) = retention.prepare().fresh
    assert written[0].ids == ["last"]
    store.close(clean=True)


def test_an_id_that_comes_again_means_the_newer_prediction() -> None:
    retention = Retention(1100)
    retention.add(digest(1), batch(["again"]))
    retention.add(digest(2), batch(["x", "again"]))
    assert found(retention, "again").release == digest(2)
    assert found(retention, "again").predicted == 1
    for start in range(0, 1100, 100):
        retention.add(digest(3), batch([str(i) for i in range(start, start + 100)]))
    assert retention.find("x", 0) is None or found(retention, "again").release == digest(2)


def test_ids_that_cannot_be_stored_are_not_kept_and_harm_no_other() -> None:
    retention = Retention(100)
    retention.add(digest(1), batch(["a", "with\0zero", "x" * 600, "b"]))
    assert found(retention, "b").predicted == 3
    for name in ("with\0zero", "x" * 600, "", "with", "zero"):
        assert retention.find(name, 0) is None


def test_nothing_is_kept_when_nothing_is_to_be_kept() -> None:
    retention = Retention(0)
    retention.add(digest(1), batch(["a"]))
    assert retention.find("a", 0) is None
    assert not retention.prepare()


def test_a_restart_keeps_predictions_labels_and_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    retention = Retention(5000)
    retention.load(store)
    for start in range(0, 3000, 50):
        retention.add(digest(start // 1000), batch([f"id-{i}" for i in range(start, start + 50)], features=2))
        if start % 200 == 0:
            checkpoint(retention, store)
    retention.add(digest(9), batch(["plain ä \ud800"], features=None))
    retention.mark(found(retention, "id-7"))
    checkpoint(retention, store)
    retention.mark(found(retention, "id-2999"))
    checkpoint(retention, store)
    assert not retention.prepare()

    again = Retention(5000)
    again.load(store)
    assert again.rows == retention.rows == 3001
    assert not again.prepare()
    for i in (0, 7, 999, 1000, 2999):
        before, after = found(retention, f"id-{i}"), found(again, f"id-{i}")
        assert (before.release, before.predicted, before.labelled) == (after.release, after.predicted, after.labelled)
        np.testing.assert_array_equal(before.features, after.features)
    assert found(again, "id-7").labelled
    assert found(again, "id-2999").labelled
    assert not found(again, "id-8").labelled
    assert found(again, "plain ä \ud800").features is None
    store.close(clean=True)


def test_what_was_dropped_leaves_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    retention = Retention(1000)
    for start in range(0, 10_000, 500):
        retention.add(digest(1), batch([str(i) for i in range(start, start + 500)]))
        checkpoint(retention, store)
    checkpoint(retention, store)
    again = Retention(1000)
    again.load(store)
    assert again.rows == retention.rows
    assert len(store.rows("SELECT chunk FROM prediction")) == len(retention._chunks)
    store.close(clean=True)


def test_a_label_that_comes_while_a_checkpoint_is_written_is_written_by_the_next(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    retention = Retention(1000)
    retention.add(digest(1), batch(["a", "b"]))
    changes = retention.prepare()
    retention.mark(found(retention, "a"))
    retention.add(digest(1), batch(["c"]))
    with store.transaction() as db:
        changes.write(db)
    retention.written(changes)
    checkpoint(retention, store)
    again = Retention(1000)
    again.load(store)
    assert found(again, "a").labelled
    assert again.find("c", 0) is not None
    store.close(clean=True)


def test_a_damaged_chunk_is_left_out_and_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    retention = Retention(1000)
    retention.add(digest(1), batch([str(i) for i in range(300)]))
    checkpoint(retention, store)
    retention.add(digest(1), batch(["later"]))
    checkpoint(retention, store)
    for body in (b"", b"\xa1", b"\xa1\x61v\x01"):
        with store.transaction() as db:
            db.execute("UPDATE prediction SET body = ? WHERE chunk = 1", (body,))
        again = Retention(1000)
        again.load(store)
        assert again.find("5", 0) is None
        assert found(again, "later").predicted == 0
        assert again.prepare().dropped == [1]
    store.close(clean=True)


def test_a_restart_knows_how_much_memory_rows_that_were_chosen_take(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    retention = Retention(1000)
    chosen = {row: Chosen(0.5, np.ones(1280, np.float32)) for row in (0, 3)}
    retention.add(digest(1), dataclasses.replace(batch(["a", "b"], rows_each=2, features=None), chosen=chosen))
    checkpoint(retention, store)
    again = Retention(1000)
    again.load(store)
    assert again._bytes == retention._bytes > 2 * 1280 * 4
    store.close(clean=True)
