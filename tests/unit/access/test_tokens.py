"""Tokens: shown once, kept as a hash, limited, ended by time or by hand; guesses are counted."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from cloud_hub.access.first_token import announce_first_token
from cloud_hub.access.identify import Access
from cloud_hub.access.principals import HUB, Principal, Role, on_behalf_of
from cloud_hub.access.tokens import Tokens
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.records import Database
from tests.doubles.new_records import new_records
from tests.unit.hub.kit import Clock


@pytest.fixture
def db(tmp_path: Path) -> Database:
    database = new_records(tmp_path)
    return database


def test_a_token_is_its_principal_until_it_ends(db: Database) -> None:
    clock = Clock()
    tokens = Tokens(db, clock=clock)
    made = tokens.create("ci", Role.PUBLISHER, channels=["stable"], models=["digits"], lasts_s=60.0)
    who = tokens.known(made.text)
    assert who is not None and str(who) == "token:ci"
    assert (who.roles, who.channels, who.models) == ({Role.PUBLISHER}, {"stable"}, {"digits"})
    clock.now += 61.0
    assert tokens.known(made.text) is None


def test_a_revoked_token_is_nobody(db: Database) -> None:
    tokens = Tokens(db)
    made, other = tokens.create("ci", Role.VIEWER), tokens.create("ci", Role.VIEWER)
    assert tokens.revoke(made.token.id).revoked is not None
    assert tokens.known(made.text) is None and tokens.known(other.text) is not None
    assert tokens.revoke(made.token.id) == tokens.revoke(made.token.id), "again changes nothing"
    with pytest.raises(NotFound):
        tokens.revoke("absent")


ALMOST = {
    "another secret": lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
    "one letter more": lambda text: text + "0",
    "a line more": lambda text: text + "\n",
    "capitals": str.upper,
    "no prefix": lambda text: text.removeprefix("el_"),
    "a space": lambda text: f" {text}",
    "nothing": lambda text: "",
    "much": lambda text: text * 99,
}


@pytest.mark.parametrize("change", ALMOST.values(), ids=ALMOST)
def test_what_is_almost_a_token_is_nobody(db: Database, change: object) -> None:
    tokens = Tokens(db)
    made = tokens.create("ci", Role.ADMIN)
    assert tokens.known(change(made.text)) is None  # type: ignore[operator]


def test_the_first_token_is_shown_once(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    access, shown = Access(db, tmp_path, secure=True, rate=0.0), list[str]()
    announce_first_token(access, tmp_path, shown.append)
    announce_first_token(access, tmp_path, shown.append)
    assert len(shown) == 1
    who = access.tokens.known(shown[0].split()[-1])
    assert who is not None and who.role is Role.ADMIN


def test_the_first_token_of_a_service_is_in_a_file_and_not_in_its_journal(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    access, shown = Access(db, tmp_path, secure=True, rate=0.0), list[str]()
    announce_first_token(access, tmp_path, shown.append)
    file = tmp_path / "admin-token"
    assert len(shown) == 1 and str(file) in shown[0] and "el_" not in shown[0]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert access.tokens.known(file.read_text().strip()) is not None


def test_a_hub_that_asks_nobody_makes_no_token(db: Database, tmp_path: Path) -> None:
    access, shown = Access(db, tmp_path, secure=False, rate=0.0), list[str]()
    announce_first_token(access, tmp_path, shown.append)
    assert shown == [] and not access.tokens.any()


def test_the_records_hold_no_secret(db: Database, tmp_path: Path) -> None:
    made = Tokens(db).create("ci", Role.ADMIN)
    secret = made.text.rpartition("_")[2].encode()
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert files and not any(secret in data or made.text.encode() in data for data in files)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "a" * 129},
        {"channels": ["a/b"]},
        {"models": ["*"]},
        {"channels": ["a"] * 65},
    ],
)
def test_names_that_are_none(db: Database, wrong: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        Tokens(db).create(**{"name": "ci", "role": Role.VIEWER, **wrong})  # type: ignore[arg-type]
    assert not Tokens(db).any()


def test_who_made_and_who_ended_a_token_is_written_down(db: Database) -> None:
    tokens = Tokens(db)
    with on_behalf_of(Principal("person", "ada")):
        made = tokens.create("ci", Role.VIEWER)
    tokens.revoke(made.token.id)
    with db.read() as connection:
        rows = connection.execute(text("SELECT who, what, about, after_json FROM audit_log ORDER BY number")).all()
    assert [(row.who, row.what, row.about) for row in rows] == [
        ("person:ada", "token.create", made.token.id),
        (str(HUB), "token.revoke", made.token.id),
    ]
    assert made.token.created_by == "person:ada"
    assert made.text.rpartition("_")[2] not in str(rows)
