"""People as teachers: they take items, say what they are, pass them on; by hand, and by way of Label Studio."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_hub.access.principals import DEVELOPMENT, Principal, Role, on_behalf_of
from cloud_hub.errors import Conflict
from cloud_hub.escalations.label_studio import Imported, read_export
from cloud_hub.escalations.labelling import MOST_SHOWN_BYTES, at_once
from cloud_hub.escalations.records import EscalationRecords
from cloud_hub.supervise import Worker
from edgeloop.protocol import Answers, Presence, TeacherAnswer
from edgeloop.protocol.inputs import MAX_INPUT_BYTES, Tensor
from tests.doubles.packages import make_package
from tests.unit.hub.api_kit import ApiHub
from tests.unit.teachers.kit import DIGITS, escalation, until

PERSON = {"kind": "person", "hold_s": 1000, "claim_s": 100, "picture": [8, 8]}
ADA, BOB = (Principal("person", name, frozenset({Role.OPERATOR})) for name in ("ada", "bob"))


class Queue(ApiHub):
    """A hub whose channel ``stable`` asks people."""

    release: str

    def ask(self, prediction: str, status: int = 200, **changes: Any) -> TeacherAnswer | None:
        message = escalation(self.release, id=prediction, wait=True, **changes)
        answer = self.http.post("/api/v1/escalations", content=message.to_bytes())
        assert answer.status_code == status, answer.text
        return next(iter(Answers.from_bytes(answer.content).escalated), None)

    def item(self, prediction: str, **changes: Any) -> int:
        """The number of a new item."""
        assert self.ask(prediction, 202, **changes) is None
        number: int = until(lambda: self.found(prediction))["number"]
        return number

    def found(self, prediction: str) -> Any:
        return next((one for one in self.get("escalations", limit=1000) if one["prediction"] == prediction), None)

    def told(self, device: str) -> list[TeacherAnswer]:
        topic = f"edgeloop/v1/default/d/{device}/answers"
        sent = [payload for sent_to, payload, _ in list(self.sent.messages) if sent_to == topic]
        return [one for payload in sent for one in Answers.from_bytes(payload).escalated]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    folder = tmp_path_factory.mktemp("labelling")
    made = Queue(folder / "data")
    made.release = made.publish(make_package(folder / "edge"))
    made.post("channels/stable/releases", {"digest": made.release})
    made.put("teachers/people", PERSON)
    made.put("channels/stable", {"policy": {"teaching": {"teachers": ["people"]}}})
    writing = Worker("writing", made.hub.teaching.writing.run)
    writing.start()
    yield made
    writing.ask_to_stop()
    assert writing.join(10)
    made.close()


@pytest.fixture(autouse=True)
def empty(hub: Queue) -> None:
    """Every test begins with an empty queue."""
    hub.hub.clock.now += 10_000  # type: ignore[attr-defined]
    hub.hub.teaching.labelling.expire()
    assert hub.get("labelling") == []


def test_a_person_takes_an_item_says_what_it_is_and_the_device_is_told_once_it_is_back(hub: Queue) -> None:
    item = hub.item("by hand", device="camera-1")
    (listed,) = hub.get("labelling")
    assert (listed["item"], listed["teacher"], listed["predicted"], listed["claimed_by"]) == (item, "people", 3, None)
    (shown,) = hub.post("labelling/claim?channel=stable&count=5", {})
    assert shown["labels"] == list(DIGITS) and shown["text"] is None and shown["claimed_by"] == str(DEVELOPMENT)
    png = base64.b64decode(shown["image"].removeprefix("data:image/png;base64,"))
    assert png[16:24] == (8).to_bytes(4) + (8).to_bytes(4)
    assert hub.post(f"labelling/{item}/label", {"label": "7"})["state"] == "answered"
    teaching = hub.hub.teaching
    teaching.tick()
    assert hub.ask("by hand", device="camera-1").label == 7  # whoever asks again is told
    assert hub.told("camera-1") == [] and not hub.found("by hand")["told"]
    with hub.hub.db.begin() as connection:
        hub.hub.devices.take_presence(connection, Presence("camera-1", True, 1, "1"), hub.hub.clock())
    for _ in range(2):
        teaching.tick()
    (told,) = hub.told("camera-1")
    assert (told.id, told.label, told.teacher, told.learn) == ("by hand", 7, "people", True)
    written = hub.found("by hand")
    assert written["told"] and written["claimed_by"] == str(DEVELOPMENT)
    assert teaching.records.message(item) is None  # nobody has to see it any more
    hub.get(f"labelling/{item}", 404)
    hub.post(f"labelling/{item}/label", {"label": 7}, 404)
    assert hub.get("audit", about=str(item))[0]["what"] == "labelling.label"


def test_a_device_that_is_away_keeps_nobody_else_from_its_answers(hub: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [hub.item(f"away-{number}", device="camera-away") for number in range(3)]
    items.append(hub.item("here", device="camera-here"))
    untold = EscalationRecords.untold
    monkeypatch.setattr(EscalationRecords, "untold", lambda *args: untold(*args, limit=2))
    for item in items:
        hub.post(f"labelling/{item}/label", {"label": "7"})
    with hub.hub.db.begin() as connection:
        hub.hub.devices.take_presence(connection, Presence("camera-here", True, 1, "1"), hub.hub.clock())
    hub.hub.teaching.tick()
    assert [answer.id for answer in hub.told("camera-here")] == ["here"] and not hub.told("camera-away")


def test_two_people_do_not_look_at_the_same(hub: Queue) -> None:
    numbers = [hub.item(f"two-{number}") for number in range(3)]
    labelling = hub.hub.teaching.labelling
    with on_behalf_of(ADA):
        assert [one.number for one in labelling.claim(2)] == numbers[:2]
        assert [one.number for one in labelling.claim(1)] == numbers[:1]  # her own first
    with on_behalf_of(BOB):
        assert [one.number for one in labelling.claim(3)] == numbers[2:]
        for act in (
            lambda: labelling.label(numbers[0], 1),
            lambda: labelling.skip(numbers[0]),
            lambda: labelling.release(numbers[0]),
        ):
            with pytest.raises(Conflict, match="somebody else's"):
                act()
    with on_behalf_of(ADA):
        labelling.release(numbers[0])
    with on_behalf_of(BOB):
        assert [one.number for one in labelling.claim(3)] == [numbers[2], numbers[0]]
        hub.hub.clock.now += 101  # type: ignore[attr-defined]
        assert [one.number for one in labelling.claim(3)] == [numbers[0], numbers[2], numbers[1]]  # hers no longer


def test_what_people_pass_on_goes_to_the_end_and_is_given_up_after_three(hub: Queue) -> None:
    first, second = hub.item("skipped"), hub.item("not skipped")
    hub.post(f"labelling/{first}/skip", {"reason": "too dark"})
    assert [one["item"] for one in hub.get("labelling")] == [second, first]
    hub.post(f"labelling/{first}/skip", {})
    assert hub.post(f"labelling/{first}/skip", {"reason": "too dark"})["state"] == "unanswered"
    assert hub.found("skipped")["reason"] == "people: nobody could tell: too dark"
    hub.post(f"labelling/{second}/skip", {"reason": "x" * 201}, 422)


def test_what_waits_too_long_is_given_up(hub: Queue) -> None:
    hub.item("forgotten")
    hub.hub.clock.now += 1001  # type: ignore[attr-defined]
    hub.hub.teaching.tick()
    assert hub.found("forgotten")["reason"] == "people: nobody labelled it in time"
    assert hub.get("labelling") == []


def test_people_who_are_sent_away_leave_nothing_behind(hub: Queue) -> None:
    hub.put("teachers/others", PERSON)
    hub.put("channels/others", {"policy": {"teaching": {"teachers": ["others"]}}})
    hub.item("of others", channel="others")
    assert hub.get("teachers/others")["waiting"] == 1 and hub.get("teachers/others")["state"] == "people"
    assert hub.http.delete("/api/v1/teachers/others").status_code == 204
    hub.hub.teaching.tick()
    assert "taken away" in hub.found("of others")["reason"]


def test_the_queue_is_bounded_and_features_are_not_for_people(hub: Queue) -> None:
    hub.put("teachers/few", {**PERSON, "most": 1})
    hub.put("channels/few", {"policy": {"teaching": {"teachers": ["few"]}}})
    hub.item("one", channel="few")
    assert hub.ask("two", channel="few").reason == "few: no room: too many items wait"
    hub.put("teachers/few", {**PERSON, "most_bytes": 10})
    assert "no room" in hub.ask("large", channel="few").reason
    assert "features" in hub.ask("features", form="features").reason


@pytest.mark.parametrize("label", [10, -1, "eleven", ""])
def test_a_label_that_is_no_class_is_refused(hub: Queue, label: Any) -> None:
    item = hub.item(f"wrong {label!r}")
    hub.post(f"labelling/{item}/label", {"label": label}, 422)
    assert hub.get(f"labelling/{item}")["state"] == "asked"


def test_texts_and_numbers_are_shown_as_such(hub: Queue) -> None:
    text = hub.item("text", tensors={"x": Tensor.of(np.array("a small cat", object))})
    assert hub.get(f"labelling/{text}")["text"] == "a small cat"
    both = hub.item("both", tensors={"a": Tensor.of(np.array([0.5, 2.0])), "b": Tensor.of(np.array([1]))})
    assert hub.get(f"labelling/{both}")["text"] == "a: [0.5, 2.0]\nb: [1.0]"


def annotated(task: dict[str, Any], label: str, at: str = "2026-01-01", **more: Any) -> dict[str, Any]:
    """A task as Label Studio exports it."""
    result = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [label]}}
    other = {"from_name": "other", "type": "rating", "value": {"rating": 3}}
    done = {"id": 1, "result": [other, result], "was_cancelled": False, "updated_at": at, **more}
    return {"id": 9, "data": task["data"], "annotations": [*task.get("annotations", []), done]}


def test_label_studio_gets_tasks_and_gives_labels(hub: Queue) -> None:
    items = [hub.item(f"studio-{number}") for number in range(5)]
    tasks = hub.get("labelling/label-studio", channel="stable")
    assert [task["data"]["edgeloop_item"] for task in tasks] == items
    (prediction,) = tasks[0]["predictions"]
    assert prediction["result"][0]["value"] == {"choices": ["3"]} and prediction["score"] == 0.4
    assert tasks[0]["data"]["image"].startswith("data:image/png;base64,")
    twice = annotated(annotated(tasks[0], "1", "2026-01-02"), "8")
    minimal = {**tasks[1]["data"], "label": "2", "id": 4, "annotator": 1}
    cancelled = annotated(tasks[2], "3", was_cancelled=True)
    elsewhere = annotated({"data": {**tasks[3]["data"], "edgeloop_about": "camera-7/other/0"}}, "3")
    export = [twice, minimal, cancelled, elsewhere, annotated(tasks[4], "eleven")]
    answer = hub.post("labelling/label-studio?channel=stable", export)
    assert (answer["labelled"], answer["skipped"], len(answer["refused"])) == (2, 1, 2)
    assert "another one" in answer["refused"][0] and "no class" in answer["refused"][1]
    assert [hub.found(f"studio-{number}")["label"] for number in range(5)] == [1, 2, None, None, None]
    assert hub.post("labelling/label-studio", export)["labelled"] == 0  # it counts once
    assert (
        "not on the channel"
        in hub.post("labelling/label-studio?channel=other", [annotated(tasks[4], "3")])["refused"][0]
    )


@pytest.mark.parametrize(
    "task",
    [
        {},
        {"data": {}},
        {"data": 3},
        {"data": {"edgeloop_item": "1"}},
        {"data": {"edgeloop_item": True}},
        {"data": {"edgeloop_item": 1 << 64}},
        {"data": {"edgeloop_item": 1}, "annotations": 3},
        {"data": {"edgeloop_item": 1}, "annotations": [3]},
        {"data": {"edgeloop_item": 1}, "annotations": [{"result": [{"from_name": "label"}]}]},
        {
            "data": {"edgeloop_item": 1},
            "annotations": [{"result": [{"from_name": "label", "value": {"choices": ["a", "b"]}}]}],
        },
        {"edgeloop_item": 1, "label": ["a"]},
    ],
)
def test_what_is_no_export_is_refused_as_a_whole(hub: Queue, task: Any) -> None:
    hub.post("labelling/label-studio", [task], 422)
    with pytest.raises(ValueError, match=r"task 0|list of tasks"):
        read_export([task])


def test_an_export_without_answers_says_nothing() -> None:
    data = {"edgeloop_item": 1, "edgeloop_about": "a/b/0"}
    for task in ({"data": data, "annotations": []}, data, {"data": data, "annotations": [{"result": None}]}):
        assert read_export([task]) == [Imported(1, "a/b/0", None)]
    with pytest.raises(ValueError, match="list of tasks"):
        read_export({"data": data})


def test_one_answer_shows_so_many_bytes(hub: Queue) -> None:
    item = hub.item("sized")
    (record,) = [one for one in hub.hub.teaching.labelling.waiting() if one.number == item]
    large = [type(record)(**{**vars(record), "bytes": MAX_INPUT_BYTES}) for _ in range(5)]
    assert len(at_once(large)) == MOST_SHOWN_BYTES // MAX_INPUT_BYTES
    huge = type(record)(**{**vars(record), "bytes": 2 * MOST_SHOWN_BYTES})
    assert at_once([huge, record]) == [huge]


def test_who_is_limited_labels_what_is_theirs(tmp_path: Path) -> None:
    hub = Queue(tmp_path / "data", insecure=False)
    try:
        with hub.client(hub.token(Role.OPERATOR, "limited", channels=["theirs"])) as http:
            assert http.get("/api/v1/labelling").status_code == 403
            assert http.get("/api/v1/labelling?channel=theirs").status_code == 200
            assert http.get("/api/v1/labelling?channel=other").status_code == 403
            assert http.post("/api/v1/labelling/claim?channel=theirs").status_code == 200
            assert http.post("/api/v1/labelling/9/label", json={"label": 1}).status_code == 404
        with hub.client(hub.token(Role.VIEWER, "viewer")) as http:
            assert http.get("/api/v1/labelling?channel=theirs").status_code == 403
    finally:
        hub.close()
