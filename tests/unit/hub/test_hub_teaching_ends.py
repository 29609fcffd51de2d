"""When a hub stops, or its records refuse: nothing is given up that somebody waits for, and no record holds up all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from cloud_hub.escalations.records import ASKED, EscalationRecord, EscalationRecords, Key
from cloud_hub.escalations.writing import Writing, Written
from tests.doubles.packages import make_package
from tests.unit.hub.api_kit import ApiHub
from tests.unit.teachers.kit import escalation


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    folder = tmp_path_factory.mktemp("ends")
    made = ApiHub(folder / "data")
    release = made.publish(make_package(folder / "edge"))
    made.post("channels/stable/releases", {"digest": release})
    made.put("teachers/people", {"kind": "person"})
    made.put("channels/stable", {"policy": {"teaching": {"teachers": ["people"]}}})
    message = escalation(release, id="asked", wait=True)
    assert made.http.post("/api/v1/escalations", content=message.to_bytes()).status_code == 202
    assert made.hub.teaching.writing.flush()
    yield made
    made.close()


def record(prediction: str, **changes: Any) -> EscalationRecord:
    whose = ("camera-1", prediction, 0, "stable", "sha256:1", "", "input", 0.5, False, False, 1, 0.9)
    return EscalationRecord(*whose, **{"bytes": 100, "received": 0.0, **changes})


def written(hub: ApiHub, *names: str, **changes: Any) -> tuple[Writing, list[Key]]:
    """Records that wait to be written, the middle one with changes; and the keys of those that are dealt with."""
    writing, done = Writing(hub.hub.db, EscalationRecords(hub.hub.db), hub.hub.quarantine), list[Key]()
    for place, name in enumerate(names):
        more = changes if place == len(names) // 2 else {}
        writing.add(Written(record(name, **more)), done.append)
    return writing, done


def test_a_record_that_cannot_be_written_takes_no_other_with_it(hub: ApiHub) -> None:
    writing, done = written(hub, "before", "too large", "after", bytes=2**70)
    assert writing.flush() and writing.lost == 1
    assert [key[1] for key in done] == ["before", "too large", "after"], "who waits for it is let go"
    records = EscalationRecords(hub.hub.db)
    assert [records.find(key) is not None for key in done] == [True, False, True]


def test_records_that_are_away_are_asked_again(hub: ApiHub, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, done = written(hub, "one", "two", "three", bytes=2**70)
    write = EscalationRecords.write

    def full(self: EscalationRecords, connection: Any, one: EscalationRecord, *more: Any) -> None:
        if one.prediction == "three":
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        write(self, connection, one, *more)

    with monkeypatch.context() as patch:
        patch.setattr(EscalationRecords, "write", full)
        assert not writing.flush()
    assert [key[1] for key in done] == ["one", "two"]
    assert writing.flush() and [key[1] for key in done] == ["one", "two", "three"] and writing.lost == 1


def test_a_hub_that_stops_gives_up_nothing_that_people_are_asked(hub: ApiHub) -> None:
    teaching = hub.hub.teaching
    teaching.close(1.0)
    teaching.tick()  # its worker ends after the teachers
    (item,) = [one for one in teaching.records.newest() if one.prediction == "asked"]
    assert item.state == ASKED and teaching.records.message(item.number) is not None
    assert teaching.staff.desk("people") is None and teaching.staff.people(["people"]) == ["people"]
