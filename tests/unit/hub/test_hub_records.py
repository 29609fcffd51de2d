"""Records: one writer, transactions that join, tables that the migrations really make."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from cloud_hub.records import Database
from cloud_hub.records.all_tables import metadata
from cloud_hub.records.counters import RELEASE_COUNTS, Sums, add_lists, add_sums
from cloud_hub.records.database import add_rows, select_in
from cloud_hub.records.tables import insight_totals, marks


@pytest.fixture
def db(tmp_path: Path) -> Database:
    database = Database.in_folder(tmp_path)
    database.migrate()
    return database


def put(db: Database, device: str, last: int = 1) -> None:
    with db.begin() as connection:
        connection.execute(marks.insert().values(device=device, epoch=1, last=last))


def devices(db: Database) -> list[str]:
    with db.read() as connection:
        return list(connection.execute(select(marks.c.device).order_by(marks.c.device)).scalars())


def test_migrations_make_exactly_the_tables_of_the_code(db: Database) -> None:
    with db.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_again_changes_nothing(db: Database) -> None:
    put(db, "a")
    db.migrate()
    assert devices(db) == ["a"]


def test_a_block_that_raises_leaves_nothing(db: Database) -> None:
    with pytest.raises(ZeroDivisionError), db.begin():
        put(db, "a")
        raise ZeroDivisionError
    assert devices(db) == []


def test_inner_transactions_join_and_callbacks_follow_the_outermost_commit(db: Database) -> None:
    said: list[list[str]] = []
    with db.begin():
        with db.begin():
            put(db, "a")
            db.after_commit(lambda: said.append(devices(db)))
        assert devices(db) == ["a"], "its own thread sees what it wrote"
        assert said == []
        put(db, "b")
    assert said == [["a", "b"]]
    db.after_commit(lambda: said.append([]))
    assert said[-1] == [], "without a transaction a callback is called at once"


def test_callbacks_of_a_rolled_back_transaction_are_not_called(db: Database) -> None:
    said: list[int] = []
    with pytest.raises(ZeroDivisionError), db.begin():
        db.after_commit(lambda: said.append(1))
        raise ZeroDivisionError
    with db.begin():
        pass
    assert said == []


def test_other_threads_do_not_see_what_is_not_committed(db: Database) -> None:
    seen: list[list[str]] = []
    with db.begin():
        put(db, "a")
        reader = threading.Thread(target=lambda: seen.append(devices(db)))
        reader.start()
        reader.join(5)
    assert seen == [[]]


def test_writers_of_many_threads_wait_for_one_another(db: Database) -> None:
    def work(name: str) -> None:
        for number in range(20):
            put(db, f"{name}{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(devices(db)) == 80


def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(OperationalError, match="readonly"), db.read() as connection:
        connection.execute(text("DELETE FROM marks"))


def test_records_outlive_the_process(db: Database, tmp_path: Path) -> None:
    put(db, "a")
    db.close()
    again = Database.in_folder(tmp_path)
    again.migrate()
    assert devices(again) == ["a"]


def test_counts_add_up_and_lists_grow(db: Database) -> None:
    key = ("c", "r")
    with db.begin() as connection:
        add_sums(connection, insight_totals, {key: Sums({"predictions": 2}, [1, 1])}, RELEASE_COUNTS)
        both = {key: Sums({"predictions": 3, "windows": 1}, [0, 1, 2]), ("c", "s"): Sums({"errors": 7})}
        add_sums(connection, insight_totals, both, RELEASE_COUNTS)
        rows = connection.execute(select(insight_totals).order_by(insight_totals.c.release)).all()
    assert [(row.predictions, row.windows, row.errors, row.classes_json) for row in rows] == [
        (5, 1, 0, "[1, 2, 2]"),
        (0, 0, 7, "[]"),
    ]
    assert add_lists([], [1]) == [1]


@pytest.mark.parametrize("count", [0, 1, 3, 512, 1_300])
def test_many_values_are_looked_for_at_once(db: Database, count: int) -> None:
    names = [f"d{number:04d}" for number in range(count)]
    with db.begin() as connection:
        add_rows(
            connection,
            marks,
            ("device", "epoch", "last"),
            [(name, 1, 1) for name in [*names, "other"]],
            replaced=["last"],
        )
    with db.read() as connection:
        found = select_in(connection, select(marks.c.device), marks.c.device, names)
        assert sorted(name for (name,) in found) == names
