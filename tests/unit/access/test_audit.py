"""The audit log: a chain that only grows, and says where it was touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from cloud_hub.access import audit
from cloud_hub.access.audit import Head
from cloud_hub.access.principals import HUB
from cloud_hub.records import Database
from tests.doubles.new_records import new_records


@pytest.fixture
def db(tmp_path: Path) -> Database:
    database = new_records(tmp_path)
    for number in range(1, 6):
        with database.begin() as connection:
            audit.record(connection, HUB, "channel.policy", {"n": number - 1}, {"n": number}, about="stable", at=number)
    return database


def verdict(db: Database, anchor: Head | None = None) -> audit.Verdict:
    with db.read() as connection:
        return audit.verify(connection, anchor)


def tamper(db: Database, *statements: str) -> None:
    """As the owner of the file can: without what protects the table."""
    with db.begin() as connection:
        for trigger in ("no_UPDATE", "no_DELETE", "in_order"):
            connection.execute(text(f"DROP TRIGGER audit_log_{trigger}"))
        for statement in statements:
            connection.execute(text(statement))


def test_a_chain_that_was_left_alone_holds(db: Database) -> None:
    found = verdict(db)
    assert found.problem == "" and found.head.number == 5
    with db.read() as connection:
        assert audit.head(connection) == found.head
        assert [entry.after for entry in audit.entries(connection, 3)] == [{"n": 4}, {"n": 5}]
        assert [entry.number for entry in audit.newest(connection, 2, "stable")] == [5, 4]
        assert audit.newest(connection, about="other") == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET who = 'token:mallory' WHERE number = 3",
        "DELETE FROM audit_log WHERE number = 5",
        "INSERT OR REPLACE INTO audit_log SELECT 3, at, who, what, about, before_json, 'null', previous, hash "
        "FROM audit_log WHERE number = 3",
        "INSERT INTO audit_log SELECT 9, at, who, what, about, before_json, after_json, previous, hash "
        "FROM audit_log WHERE number = 5",
    ],
)
def test_the_database_refuses_to_change_it(db: Database, statement: str) -> None:
    with pytest.raises(IntegrityError, match="only added to"), db.begin() as connection:
        connection.execute(text(statement))
    assert verdict(db).problem == ""


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE audit_log SET who = 'token:mallory' WHERE number = 3", "row 3 was changed"),
        ("UPDATE audit_log SET at = at + 1 WHERE number = 1", "row 1 was changed"),
        ("UPDATE audit_log SET after_json = '{}' WHERE number = 5", "row 5 was changed"),
        ("DELETE FROM audit_log WHERE number = 2", "row 2 is missing"),
        ("DELETE FROM audit_log WHERE number = 1", "row 1 is missing"),
        ("UPDATE audit_log SET previous = zeroblob(32) WHERE number = 4", "row 4 does not follow"),
    ],
)
def test_what_was_done_to_it_is_said(db: Database, statement: str, said: str) -> None:
    tamper(db, statement)
    assert said in verdict(db).problem


def test_an_end_that_was_cut_off_needs_a_head_that_was_kept(db: Database) -> None:
    kept = verdict(db).head
    tamper(db, "DELETE FROM audit_log WHERE number > 3")
    assert verdict(db).problem == "", "nothing inside tells it"
    assert "its end is gone" in verdict(db, kept).problem


def test_a_chain_that_was_written_anew_needs_a_head_that_was_kept(db: Database) -> None:
    kept = verdict(db).head
    tamper(db, "DELETE FROM audit_log")
    for number in range(1, 8):
        with db.begin() as connection:
            audit.record(connection, HUB, "channel.policy", None, {"n": number}, about="stable", at=number)
    assert verdict(db).problem == "" and "written anew" in verdict(db, kept).problem


def test_a_change_that_fails_leaves_no_entry(db: Database) -> None:
    with pytest.raises(ZeroDivisionError), db.begin() as connection:
        audit.record(connection, HUB, "channel.policy", None, {})
        raise ZeroDivisionError
    assert verdict(db).head.number == 5
