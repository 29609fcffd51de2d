from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge_agent.observing.outbox import Outbox
from edge_agent.observing.store import Store, StoreError
from edgeloop.insights import WindowSchema


def test_an_epoch_belongs_to_a_file(tmp_path: Path) -> None:
    first = Store(tmp_path / "a" / "agent.db")
    epoch = first.epoch
    first.close(clean=True)
    again = Store(tmp_path / "a" / "agent.db")
    other = Store(tmp_path / "b" / "agent.db")
    assert again.epoch == epoch > 0
    assert other.epoch not in (epoch, 0)
    again.close(clean=True)
    other.close(clean=True)


def test_only_a_stop_that_was_not_clean_counts_as_unclean(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    for clean, unclean_before in ((True, 0), (False, 0), (True, 1), (False, 1), (False, 2), (True, 3)):
        store = Store(path)
        assert store.unclean_restarts == unclean_before
        store.close(clean)


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.set_fact("x", 1)
        raise ZeroDivisionError
    assert store.fact("x", 0) == 0
    with store.transaction():
        store.set_fact("x", 2)
    assert store.fact("x", 0) == 2
    store.close(clean=True)


def test_it_is_durable_as_configured(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    assert store.rows("PRAGMA journal_mode") == [("wal",)]
    assert store.rows("PRAGMA synchronous") == [(2,)]
    store.close(clean=True)


def test_two_agents_do_not_share_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    with pytest.raises(StoreError, match="another edge-agent"):
        Store(tmp_path / "agent.db")
    store.close(clean=True)
    Store(tmp_path / "agent.db").close(clean=True)


@pytest.mark.parametrize("damage", [b"this is no database at all, " * 40, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_file_is_kept_aside_and_a_new_epoch_begins(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(damage)
    store = Store(path)
    assert store.epoch > 0
    store.close(clean=True)
    (aside,) = tmp_path.glob("agent.db.damaged-*")
    assert aside.read_bytes() == damage


def test_a_card_that_damages_one_file_after_the_other_is_not_filled_with_them(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    epochs = set()
    for number in range(4):
        path.write_bytes(b"damage %d " % number * 100)
        store = Store(path)
        epochs.add(store.epoch)
        store.close(clean=True)
    (aside,) = tmp_path.glob("agent.db.damaged-*")
    assert aside.read_bytes().startswith(b"damage 3") and len(epochs) == 4


def test_a_file_of_a_newer_agent_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    Store(path).close(clean=True)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(StoreError, match="format 9"):
        Store(path)
    # The lock was given back, so the right agent can open it.
    with pytest.raises(StoreError, match="format 9"):
        Store(path)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="data folder"):
        Store(tmp_path / "file" / "agent.db")


FORMAT_1 = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE release (digest TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE outbox (
  first INTEGER PRIMARY KEY, last INTEGER NOT NULL, release TEXT NOT NULL,
  sent INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE ledger (release TEXT PRIMARY KEY, totals TEXT NOT NULL);
CREATE TABLE open_window (release TEXT PRIMARY KEY, totals TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE prediction (chunk INTEGER PRIMARY KEY, release TEXT NOT NULL, body BLOB NOT NULL, labelled BLOB NOT NULL);
INSERT INTO fact VALUES ('epoch', 7), ('last_seq', 9), ('serial/stable', 3);
INSERT INTO outbox VALUES (3, 4, 'r', 1, 201, x'aa'), (5, 5, 'r', 1, 201, x'bb'), (6, 8, 'r', 0, 201, x'cc'),
  (9, 9, 's', 0, 201, x'dd');
INSERT INTO open_window VALUES ('r', '{"predictions": 5}', x'ee');
PRAGMA user_version=1;
"""


def test_a_file_of_an_earlier_agent_is_brought_up_with_all_that_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    earlier = sqlite3.connect(path)
    earlier.executescript(FORMAT_1)
    earlier.close()
    store = Store(path)
    assert (store.epoch, store.fact("serial/stable", 0)) == (7, 3)
    outbox = Outbox(store, 1 << 20, lambda _: WindowSchema(classes=2, features=0, inputs=0, projections=0))
    state = outbox.state()
    assert (state.rows, state.unsent_rows, state.base, state.last_seq) == (4, 2, 3, 9)
    assert [(row.first, row.last, row.body) for row in outbox.sent_rows(0, 9, 1 << 20)] == [
        (3, 4, b"\xaa"),
        (5, 5, b"\xbb"),
    ]
    assert [(row.first, row.last, row.body) for row in outbox.send_next(9, 1 << 20)] == [
        (6, 8, b"\xcc"),
        (9, 9, b"\xdd"),
    ]
    assert store.rows("SELECT release, segment, body FROM open_window") == [("r", "", b"\xee")]
    store.set_note("x", b"y")
    assert store.note("x") == b"y" and store.note("z") is None
    store.close(clean=True)
    assert not list(tmp_path.glob("*.damaged-*"))
