"""Malformed payloads on every topic that an agent reads: counted, shown, and without any effect."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from edge_agent.ports import FeedbackItem
from edgeloop.protocol import ChannelDocument, Reported, SignedChannel, Topics, encode
from edgeloop.protocol.link import Link
from tests.doubles.recording import record
from tests.integration.agent_parts import AgentParts
from tests.integration.brokers import BrokerProcess, broker_or_skip, find_mosquitto
from tests.integration.toy_hub import FLEET
from tests.unit.observing.doubles import batch, release
from tests.unit.protocol.test_codec import HOSTILE

DEVICE = "dev-1"
TOPICS = Topics(FLEET)
DIGEST = "sha256:" + "a" * 64
REF = {"digest": DIGEST, "name": "n", "version": "1", "index_size": 10}

WELL_FORMED_AND_WRONG: dict[str, list[dict[str, Any]]] = {
    TOPICS.ack(DEVICE): [
        {},
        {"epoch": "1", "last": 1},
        {"epoch": 1, "last": -1},
        {"epoch": 1, "last": 1.5},
        {"epoch": 1, "last": 1, "refused": "all"},
        {"epoch": 1, "last": 1, "refused": list(range(1, 2000))},
    ],
    TOPICS.answers(DEVICE): [
        {"items": "x"},
        {"items": [["id"]]},
        {"items": [["id", None]]},
        {"items": [["id", -1]]},
        {"items": [[b"id", 1]]},
        {"items": [["i" * 1000, 1]]},
        {"items": [["id", 1]] * 1001},
    ],
    TOPICS.desired(DEVICE): [
        {"channel": "../etc"},
        {"channel": "a/b"},
        {"channel": "#"},
        {"channel": 7},
        {"pin": "sha256:short"},
        {"policy": []},
    ],
    TOPICS.channel("stable"): [
        {"channel": "stable"},
        {"channel": "other", "serial": 9},
        {"channel": "stable", "serial": -1},
        {"channel": "stable", "serial": True},
        {"channel": "stable", "serial": 9, "current": {}},
        {"channel": "stable", "serial": 9, "current": {**REF, "digest": "../../../etc/passwd"}},
        {"channel": "stable", "serial": 9, "current": {**REF, "index_size": 1 << 40}},
        {"channel": "stable", "serial": 9, "rollout": {"id": "r", "candidate": REF, "fraction": 2}},
        {"channel": "stable", "serial": 9, "hub": "x" * 10_000},
    ],
}


#: Topics whose payload is a message in a message.
SEALED = (TOPICS.desired(DEVICE), TOPICS.channel("stable"))


def payload_of(topic: str, fields: dict[str, Any]) -> bytes:
    """What goes to the topic when the message in it has these fields."""
    return encode({"document": encode(fields)} if topic in SEALED else fields)


def wait_for(what: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    running = broker_or_skip("mosquitto" if find_mosquitto() else "amqtt", tmp_path)
    yield running
    running.kill()


@pytest.fixture
def agent(broker: BrokerProcess, tmp_path: Path) -> Iterator[AgentParts]:
    made = AgentParts(tmp_path / "agent", broker.port, broker.mqtt_version)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def attacker(broker: BrokerProcess, agent: AgentParts) -> Iterator[Callable[[str, bytes], None]]:
    link = Link("127.0.0.1", broker.port, "attacker", version=broker.mqtt_version)
    link.start()
    wait_for(lambda: link.connected and agent.messaging.link.connected)
    time.sleep(0.2)  # the agent's subscriptions

    def publish(topic: str, payload: bytes) -> None:
        wait_for(lambda: link.publish(topic, payload))

    yield publish
    link.stop(1.0)


def attack(agent: AgentParts, publish: Callable[[str, bytes], None], payloads: list[tuple[str, bytes]]) -> None:
    """Send all, see each of them counted, and then see the agent do its work as if nothing had been."""
    inputs, outputs = batch(1)
    record(agent.observing.recorder, release(), "mine", inputs, outputs, 1)
    agent.observing.recorder.flush()
    before = agent.messaging.state()
    for topic, payload in payloads:
        publish(topic, payload)
    wait_for(lambda: agent.messaging.state().malformed == before.malformed + len(payloads))
    after = agent.messaging.state()
    assert after.last_malformed
    assert (after.connected, after.channel, after.serial) == (True, "stable", before.serial)
    assert agent.messaging.link.counters.failed == 0
    assert agent.updates.followed == []
    assert agent.observing.outbox.state().rows == 1
    assert agent.observing.recorder.feedback([FeedbackItem("mine", 1)]).accepted == 1

    publish(TOPICS.channel("stable"), SignedChannel(ChannelDocument("stable", 3).to_bytes()).to_bytes())
    wait_for(lambda: [document.serial for document in agent.updates.followed] == [3])


def test_bytes_that_are_not_the_dialect(agent: AgentParts, attacker: Callable[[str, bytes], None]) -> None:
    # An empty payload on a retained topic is how MQTT takes a document back, so it is no error there.
    attack(agent, attacker, [(topic, data) for topic in WELL_FORMED_AND_WRONG for data in HOSTILE.values() if data])


def test_messages_with_wrong_fields(agent: AgentParts, attacker: Callable[[str, bytes], None]) -> None:
    fields = [(topic, payload_of(topic, fields)) for topic, wrong in WELL_FORMED_AND_WRONG.items() for fields in wrong]
    inside = [(topic, encode({"document": wrong})) for topic in SEALED for wrong in ("text", 7, b"not a document")]
    attack(agent, attacker, fields + inside)


def test_random_bytes(agent: AgentParts, attacker: Callable[[str, bytes], None]) -> None:
    randomness = random.Random(11)
    payloads = []
    for _ in range(300):
        topic = randomness.choice(list(WELL_FORMED_AND_WRONG))
        payloads.append((topic, b"\xff" + randomness.randbytes(randomness.randrange(2000))))
    attack(agent, attacker, payloads)


def test_what_is_malformed_is_seen_by_the_hub(
    agent: AgentParts, attacker: Callable[[str, bytes], None], broker: BrokerProcess
) -> None:
    seen: list[Reported] = []
    hub = Link("127.0.0.1", broker.port, "hub", version=broker.mqtt_version)
    hub.subscribe(TOPICS.reported(DEVICE), lambda _, data: seen.append(Reported.from_bytes(data)))
    hub.start()
    try:
        for _ in range(3):
            attacker(TOPICS.ack(DEVICE), b"\x00")
        wait_for(lambda: seen and seen[-1].health["malformed"] == 3)
    finally:
        hub.stop(1.0)


def test_labels_for_others_and_for_nothing_change_nothing(
    agent: AgentParts, attacker: Callable[[str, bytes], None]
) -> None:
    inputs, outputs = batch(1)
    record(agent.observing.recorder, release(), "mine", inputs, outputs, 1)
    items = [[f"never-{i}", i % 4] for i in range(998)] + [["mine", 99], ["mine", "no such class"]]
    attacker(TOPICS.answers(DEVICE), cbor2.dumps({"v": 1, "items": items}))
    time.sleep(0.5)
    agent.observing.recorder.flush()
    totals = agent.observing.ledger.totals()
    assert (totals["predictions"], totals["feedback"]) == (1, 0)
    assert agent.messaging.state().malformed == 0
    assert agent.messaging.link.counters.failed == 0
