"""A real hub, its real broker and a language model over HTTP: windows pass those who think, limits outlive the hub."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop.package import Package
from edgeloop.protocol import Answers, TeacherAnswer, Topics
from edgeloop.protocol.link import Link
from tests.doubles.openai_server import OpenAiServer, refuses, says
from tests.doubles.packages import make_package
from tests.integration.brokers import find_mosquitto
from tests.integration.hub_process import FLEET, HubProcess, SendingDevice, wait_for
from tests.unit.teachers.kit import escalation

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="needs Mosquitto: apt-get install mosquitto")
WAITING = 64


class Asker:
    """A device that asks over MQTT, and what it was told."""

    def __init__(self, hub: HubProcess, device: str) -> None:
        self.device, self.told = device, dict[str, TeacherAnswer]()
        self._topics = Topics(FLEET)
        self.link = Link("127.0.0.1", hub.broker_port, f"asker-{device}", backoff_s=(0.05, 0.3))
        self.link.subscribe(self._topics.answers(device), self._hear)
        self.link.start()
        wait_for(lambda: self.link.subscribed, what="the broker")

    def ask(self, release: str, **changes: Any) -> None:
        message = escalation(release, device=self.device, **changes)
        assert self.link.publish(self._topics.escalations(self.device), message.to_bytes())

    def _hear(self, _topic: str, payload: bytes) -> None:
        for answer in Answers.from_bytes(payload).escalated:
            self.told[answer.id] = answer


class World:
    """The hub, the model, two packages and what is on the channel."""

    def __init__(self, folder: Path) -> None:
        self.model = OpenAiServer(says({"label": "7", "confidence": 0.9}))
        self.edge = make_package(folder / "edge")
        self.hub = HubProcess(folder / "hub", escalation_queue=WAITING, escalation_patience_s=300)
        self.hub.environment = {
            "MODEL_KEY": "sk-test",
            "CLOUD_HUB_TEACHER_KEYS": json.dumps({"vendor": {"url": self.model.url, "env": "MODEL_KEY"}}),
        }
        self.hub.start()
        self.release = self.publish(self.edge)
        self.teacher(
            "small", {"kind": "package", "release": self.publish(make_package(folder / "large", name="large", seed=9))}
        )

    def publish(self, package: Package) -> str:
        files = {entry.sha256: (package.root / entry.path).read_bytes() for entry in package.index.entries}
        return self.hub.publish(package.index.to_bytes(), files)

    def teacher(self, name: str, spec: dict[str, Any]) -> None:
        answer = self.hub.api.put(f"/api/v1/teachers/{name}", json=spec)
        assert answer.status_code == 200, answer.text

    def vendor(self, name: str, channel: str, *others: str, **spec: Any) -> None:
        """A model with a name of its own, and a channel that asks it first."""
        self.teacher(name, {"kind": "openai", "url": self.model.url, "model": "m", "key": "vendor", **spec})
        teaching = {"teachers": [name, *others]}
        assert (
            self.hub.api.put(f"/api/v1/channels/{channel}", json={"policy": {"teaching": teaching}}).status_code == 200
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("teachers"))
    yield made
    made.model.close()
    made.hub.close()


def test_windows_pass_escalations_that_wait_and_the_oldest_give_way(world: World) -> None:
    world.vendor("slow", "stable", instances=2, timeout_s=200)
    profile = world.edge.profile()
    assert profile is not None
    sender = SendingDevice(world.hub, "sender", world.release, profile).start()
    everyone = [Asker(world.hub, f"asker-{number}") for number in range(8)]

    def heard() -> list[TeacherAnswer]:
        return [answer for one in everyone for answer in list(one.told.values())]

    go = threading.Event()
    world.model.then = lambda request, socket: (go.wait(60), says({"label": "7", "confidence": 0.9})(request, socket))[
        1
    ]
    try:
        # More than may wait at the desk, from several devices: none of them may have more than a quarter under way.
        for number in range(WAITING // 4):
            for one in everyone:
                one.ask(world.release, id=f"{number}")
        for _ in range(20):
            sender.close_window()
        wait_for(sender.drained, what="acknowledgements while the teacher thinks")
        pushed = WAITING // 4 * len(everyone) - WAITING - 2
        told = wait_for(lambda: (found := heard())[pushed - 1 :] and found, what="answers for whom there is no room")
        assert {answer.reason for answer in told} == {"slow: no room"}
    finally:
        go.set()
        world.model.then = says({"label": "7", "confidence": 0.9})
    told = wait_for(lambda: (found := heard())[WAITING // 4 * len(everyone) - 1 :] and found, what="an answer for each")
    labels = [answer.label for answer in told]
    assert (labels.count(7), labels.count(None)) == (WAITING + 2, pushed)
    for one in (*everyone, sender):
        (one.stop if isinstance(one, SendingDevice) else one.link.stop)()


def test_the_package_answers_when_the_model_is_down_and_the_model_is_left_alone(world: World) -> None:
    world.vendor("down", "fallback", "small")
    asker = Asker(world.hub, "faller")
    world.model.then, before = refuses(429, retry_after="60"), len(world.model.requests)
    try:
        for number in range(5):
            asker.ask(world.release, id=f"{number}", channel="fallback")
            wait_for(lambda number=number: asker.told.get(f"{number}"))
    finally:
        world.model.then = says({"label": "7", "confidence": 0.9})
    assert {answer.teacher for answer in asker.told.values()} == {"small"}
    assert len(world.model.requests) == before + 1
    assert world.hub.get("teachers/down")["state"] == "open"
    asker.link.stop()


def test_a_limit_of_money_outlives_the_hub(world: World) -> None:
    world.vendor("dear", "money", price_call=1.0, spend_per_day=3.0)
    asker = Asker(world.hub, "spender")
    asker.ask(world.release, id="paid", channel="money")
    assert wait_for(lambda: asker.told.get("paid")).label == 7
    world.model.then, before = world.model.sleeps, len(world.model.requests)
    asker.ask(world.release, id="under way", channel="money")
    wait_for(lambda: len(world.model.requests) > before, what="the call")
    world.hub.kill()
    world.model.then = says({"label": "7", "confidence": 0.9})
    world.hub.start()
    assert world.hub.get("teachers/dear")["spent_today"] == 2.0  # the call under way may have been made
    wait_for(lambda: asker.link.subscribed, what="the broker")
    asker.ask(world.release, id="under way", channel="money")
    assert wait_for(lambda: asker.told.get("under way")).label == 7  # nothing was written of it: it may be asked again
    asker.ask(world.release, id="too dear", channel="money")
    refused = wait_for(lambda: asker.told.get("too dear"))
    assert refused.label is None and "dear may cost 3.0 a day" in refused.reason
    written = wait_for(
        lambda: [one for one in world.hub.get("escalations", channel="money") if one["prediction"] == "too dear"]
    )
    assert written[0]["cost"] == 0.0
    asker.link.stop()
    assert "sk-test" not in world.hub.log
    assert b"sk-test" not in (world.hub.folder / "data" / "hub.db").read_bytes()


def test_a_client_that_waits_is_answered_over_http(world: World) -> None:
    world.vendor("cheap", "http", vision=False)
    message = escalation(world.release, id="http", channel="http", wait=True, deadline_ms=20_000)
    answer = world.hub.api.post("/api/v1/escalations", content=message.to_bytes())
    assert answer.status_code == 200
    (told,) = Answers.from_bytes(answer.content).escalated
    assert (told.label, told.teacher, told.confidence) == (7, "cheap", 0.9)
    assert "[0, 0.0159, 0.0317," in world.model.requests[-1][2]["messages"][0]["content"]
