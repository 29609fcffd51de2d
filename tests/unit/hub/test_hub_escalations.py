"""Escalations over the hub's real HTTP interface: asked once, answered, written down with the chance of being drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_hub.access.principals import Role
from cloud_hub.supervise import Worker
from cloud_hub.teachers.port import Busy, Opinion
from edgeloop.protocol import Answers, Escalation, TeacherAnswer
from edgeloop.protocol.inputs import MAX_INPUT_BYTES, Tensor
from tests.doubles.packages import answers, make_model, make_package
from tests.unit.hub.api_kit import ApiHub
from tests.unit.teachers.kit import Told, escalation, until

URL = "/api/v1/escalations"


class TeachingHub(ApiHub):
    """A hub with a release whose devices ask."""

    edge: str


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeachingHub]:
    """A hub with a small model on a channel, and a package as its teacher."""
    folder = tmp_path_factory.mktemp("escalations")
    hub = TeachingHub(folder / "data", escalation_queue=16)
    hub.edge = hub.publish(make_package(folder / "edge"))
    teacher = hub.publish(make_package(folder / "teacher", name="large", seed=9))
    hub.post("channels/stable/releases", {"digest": hub.edge})
    hub.put("teachers/large", {"kind": "package", "release": teacher})
    hub.put("channels/stable", {"policy": {"teaching": {"teachers": ["large"]}}})
    writing = Worker("writing", hub.hub.teaching.writing.run)
    writing.start()
    yield hub
    writing.ask_to_stop()
    assert writing.join(10)
    hub.close()


@pytest.fixture
def told(api: TeachingHub) -> Iterator[Told]:
    """A teacher of the channel ``told`` that does what the test tells it."""
    teacher, staff = Told(), api.hub.teaching.staff
    before = staff._hire
    staff._hire = lambda _name, _spec: teacher  # type: ignore[method-assign]
    api.put("teachers/told", {"kind": "package", "release": api.edge})
    api.put("channels/told", {"policy": {"teaching": {"teachers": ["told"]}}})
    yield teacher
    teacher.go.set()
    staff.remove("told")
    staff._hire = before  # type: ignore[method-assign]


def ask(api: TeachingHub, message: Escalation | bytes, status: int = 200) -> Answers:
    content = message if isinstance(message, bytes) else message.to_bytes()
    answer = api.http.post(URL, content=content, headers={"content-type": "application/cbor"})
    assert answer.status_code == status, answer.text
    return Answers.from_bytes(answer.content) if status < 300 else Answers(())


def asked(api: TeachingHub, **changes: Any) -> TeacherAnswer:
    """The one answer to a client that waits."""
    (answer,) = ask(api, escalation(changes.pop("release", api.edge), wait=True, **changes)).escalated
    return answer


def told_by_mqtt(api: TeachingHub, device: str) -> list[TeacherAnswer]:
    """What was sent to a device."""
    topic = f"edgeloop/v1/default/d/{device}/answers"
    sent = [payload for sent_to, payload, _ in list(api.sent.messages) if sent_to == topic]
    return [one for payload in sent for one in Answers.from_bytes(payload).escalated]


def record(api: TeachingHub, prediction: str) -> dict[str, Any]:
    """What is written down of an escalation."""
    return until(lambda: next((one for one in api.get("escalations") if one["prediction"] == prediction), None))


def test_a_client_that_waits_gets_the_answer_in_the_response(api: TeachingHub) -> None:
    row = np.linspace(0, 1, 64, dtype=np.float32)
    expected = answers(make_model(9), row[None])
    answer = asked(api, id="waits", index=3, audit=True, segment="night", probability=0.5)
    assert (answer.id, answer.index, answer.label) == ("waits", 3, int(expected["label"][0]))
    assert (answer.teacher, answer.reason, answer.learn) == ("large", "", True) and answer.ms > 0
    assert answer.confidence == pytest.approx(float(expected["probabilities"].max()), abs=1e-5)
    written = record(api, "waits")
    assert written["state"] == "answered" and written["label"] == answer.label and written["teacher"] == "large"
    assert (written["probability"], written["audit"], written["segment"]) == (0.5, True, "night")
    assert (written["predicted"], written["confidence"], written["row"]) == (3, 0.4, 3)


def test_who_does_not_wait_is_told_over_mqtt(api: TeachingHub) -> None:
    assert ask(api, escalation(api.edge, id="later", device="camera-2"), 202) == Answers(())
    (answer,) = until(lambda: told_by_mqtt(api, "camera-2"))
    assert answer.id == "later" and answer.label is not None


def test_a_message_over_mqtt_is_answered_there(api: TeachingHub) -> None:
    office, released = api.hub.teaching.office, threading.Event()
    message = escalation(api.edge, id="mqtt", device="camera-3")
    reading = Worker("reading", office.run)
    reading.start()
    topic = "edgeloop/v1/default/d/camera-3/escalations"
    office.submit(topic, message.to_bytes(), released.set)
    assert released.is_set()  # the broker's room is for windows
    office.submit(topic, b"no message at all")
    office.submit(topic.replace("camera-3", "camera-4"), message.to_bytes())
    office.submit("another/topic", b"")
    (answer,) = until(lambda: told_by_mqtt(api, "camera-3"))
    assert answer.id == "mqtt" and answer.label is not None
    refused = until(lambda: (found := api.get("quarantine")["newest"])[1:] and found)
    assert {(one["device"], one["reason"]) for one in refused} == {
        ("camera-3", "malformed"),
        ("camera-4", "wrong-device"),
    }
    reading.ask_to_stop()
    assert reading.join(10)


def test_a_row_is_asked_about_once(api: TeachingHub, told: Told) -> None:
    first = asked(api, id="once", channel="told")
    record(api, "once")
    assert asked(api, id="once", channel="told") == first
    assert asked(api, id="once", index=1, channel="told").label == 7
    assert asked(api, id="once", device="camera-9", channel="told").label == 7
    assert told.asked == [1, 1, 1]


def test_whether_a_confidence_is_calibrated_is_told_and_remembered(api: TeachingHub, told: Told) -> None:
    told.outcome = lambda _question: Opinion(7, 0.9, calibrated=True)
    first = asked(api, id="calibrated", channel="told")
    assert (first.confidence, first.calibrated) == (0.9, True)
    assert record(api, "calibrated")["calibrated"]
    assert asked(api, id="calibrated", channel="told") == first


def test_who_asks_twice_meanwhile_is_told_twice(api: TeachingHub, told: Told) -> None:
    told.go.clear()
    for _ in range(2):
        ask(api, escalation(api.edge, id="twice", device="camera-5", channel="told"), 202)
    until(lambda: told.asked)
    told.go.set()
    assert [
        one.label for one in until(lambda: told_by_mqtt(api, "camera-5")[1:] and told_by_mqtt(api, "camera-5"))
    ] == [7, 7]
    assert told.asked == [1]


def test_a_client_waits_no_longer_than_it_says_and_the_answer_follows(api: TeachingHub, told: Told) -> None:
    told.go.clear()
    for deadline_ms in (50, 500, 5000):  # on a busy machine a short one may pass before the teacher is asked
        message = escalation(api.edge, id=f"slow-{deadline_ms}", device="camera-6", channel="told", wait=True)
        assert ask(api, replace(message, deadline_ms=deadline_ms), 202) == Answers(())
        if told.asked:
            break
    told.go.set()
    late = until(lambda: [one for one in told_by_mqtt(api, "camera-6") if one.label is not None])
    assert [(one.id, one.label) for one in late] == [(f"slow-{deadline_ms}", 7)]


def test_what_nobody_could_answer_may_be_asked_again(api: TeachingHub, told: Told) -> None:
    told.outcome = lambda _question: Busy("no time")
    answer = asked(api, id="again", channel="told")
    assert answer.label is None and answer.reason == "told: no time" and answer.teacher == ""
    assert record(api, "again")["state"] == "unanswered"
    told.outcome = lambda _question: Opinion(2)
    assert asked(api, id="again", channel="told").label == 2
    until(lambda: record(api, "again")["state"] == "answered")


def test_the_next_teacher_answers_when_one_cannot(api: TeachingHub, told: Told) -> None:
    api.put("channels/chain", {"policy": {"teaching": {"teachers": ["nobody", "told", "large"], "learn": False}}})
    told.outcome = lambda _question: Busy("no time")
    answer = asked(api, id="chain", channel="chain")
    assert answer.teacher == "large" and answer.label is not None and not answer.learn
    told.outcome = lambda _question: Opinion(99)
    assert asked(api, id="outside", channel="chain").teacher == "large"
    api.put("channels/chain", {"policy": {"teaching": {"teachers": ["nobody", "told"]}}})
    reason = asked(api, id="nobody", channel="chain").reason
    assert reason == "nobody: there is no such teacher; told: it answered class 99 of 10"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"channel": "absent"}, "there is no channel 'absent'"),
        ({"channel": "quiet"}, "has no teacher"),
        ({"release": "sha256:" + "1" * 64}, "there is no release"),
        ({"tensors": {}}, "nothing travelled"),
        ({"form": "telepathy"}, "nothing travelled"),
        ({"tensors": {"x": Tensor("FP32", (64,), b"short")}}, "cannot be read"),
        ({"tensors": {"x": Tensor("QUATERNION"[:8], (1,), b"0000")}}, "cannot be read"),
        ({"tensors": {"x": Tensor("FP32", (1 << 31, 1 << 31), b"")}}, "cannot be read"),
    ],
)
def test_what_cannot_be_asked_is_answered_with_the_reason(
    api: TeachingHub, changes: dict[str, Any], reason: str
) -> None:
    api.put("channels/quiet", {"policy": {}})
    answer = asked(api, id=f"wrong {reason} {sorted(changes)}", **changes)
    assert answer.label is None and reason in answer.reason


def test_one_device_does_not_take_the_room_of_the_others(api: TeachingHub, told: Told) -> None:
    told.go.clear()
    for number in range(4):
        ask(api, escalation(api.edge, id=f"flood-{number}", device="flood", channel="told"), 202)
    answer = asked(api, id="flood-4", device="flood", channel="told")
    assert answer.label is None and "too many under way" in answer.reason
    told.go.set()
    assert asked(api, id="calm", device="calm", channel="told").label == 7


def test_a_budget_that_is_spent_has_no_teacher_asked(api: TeachingHub, told: Told) -> None:
    told.outcome = lambda _question: Opinion(7, 0.9, cost=2.0)
    budget = {"channel": "told", "money": 3.0, "stops": ["escalations"]}
    api.put("costs/settings", {"budgets": [budget]})
    for name in ("first", "second"):
        assert asked(api, id=f"dear-{name}", device="spender", channel="told").label == 7
        record(api, f"dear-{name}")
        api.hub.costs.tick()
    before = len(told.asked)
    refused = asked(api, id="dear-third", device="spender", channel="told")
    assert refused.label is None and "3 EUR" in refused.reason.replace("3.00", "3").replace("3.0", "3")
    assert len(told.asked) == before, "nobody was asked"
    written = record(api, "dear-third")
    assert (written["state"], written["cost"]) == ("unanswered", 0.0)
    assert asked(api, id="cheap", device="spender").label is not None, "another channel's teachers go on"
    api.put("costs/settings", {"budgets": [{**budget, "money": 9.0}]})
    assert asked(api, id="dear-third", device="spender", channel="told").label == 7, "it may be asked about again"
    api.put("costs/settings", {})


def test_wrong_bodies_are_refused(api: TeachingHub) -> None:
    for body in (b"", b"\xff" * 100, b"{}", Answers(()).to_bytes()):
        ask(api, body, 422)
    ask(api, b"0" * (MAX_INPUT_BYTES + (64 << 10) + 1), 413)


def test_inputs_are_kept_only_where_the_channel_says_so(api: TeachingHub) -> None:
    records = api.hub.teaching.records
    asked(api, id="unkept")
    api.put("channels/keeps", {"policy": {"teaching": {"teachers": ["large"], "keep_inputs_s": 60}}})
    asked(api, id="kept", channel="keeps")
    assert records.message(record(api, "unkept")["number"]) is None
    number = record(api, "kept")["number"]
    message = records.message(number)
    assert message is not None and message.id == "kept"
    now = api.hub.clock()
    records.forget(now + 61, keep_s=1000)
    assert records.message(number) is None and records.get(number) is not None
    records.forget(now + 1001, keep_s=1000)
    assert records.get(number) is None


def test_teachers_come_and_go(api: TeachingHub) -> None:
    spec = {"kind": "package", "release": "sha256:" + "2" * 64, "batch": 4}
    made = api.put("teachers/short-lived", spec)
    assert made["state"] == "idle" and made["spec"]["batch"] == 4 and made["kind"] == "package"
    assert [one["name"] for one in api.get("teachers")][:1] == ["large"]
    assert api.get("teachers/large")["state"] == "closed"
    assert api.get("teachers/large")["outcomes"]["answered"] > 0
    api.put("channels/absent-release", {"policy": {"teaching": {"teachers": ["short-lived"]}}})
    answer = asked(api, id="absent-release", channel="absent-release")
    assert answer.label is None and "there is no release" in answer.reason
    assert api.http.delete("/api/v1/teachers/short-lived").status_code == 204
    api.get("teachers/short-lived", 404)
    for name, body in (
        ("x", {"kind": "oracle"}),
        ("x", {**spec, "batch": 0}),
        ("x y", spec),
        ("x", {**spec, "key": 1}),
    ):
        api.put(f"teachers/{name}", body, 422)
    log = [entry["what"] for entry in api.get("audit", about="short-lived")]
    assert log == ["teacher.remove", "teacher.put"]


def test_only_devices_ask_and_only_for_themselves(tmp_path: Path) -> None:
    hub = ApiHub(tmp_path / "data", insecure=False)
    try:
        message = escalation("sha256:" + "1" * 64).to_bytes()
        for token, status in ((hub.token(Role.ADMIN), 403), ("", 401)):
            with hub.client(token) as http:
                assert http.post(URL, content=message).status_code == status
        with hub.client(hub.token(Role.OPERATOR, "op")) as http:
            assert http.get("/api/v1/teachers").status_code == 200
            assert http.put("/api/v1/teachers/x", json={}).status_code == 403
    finally:
        hub.close()
