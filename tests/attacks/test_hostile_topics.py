"""What a stranger can publish on a topic that is listened to: floods, large and retained messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.flows.ports import Rejected
from tests.attacks.hostile_contents import MODEL
from tests.conformance.flows.sources import MqttWorld, take
from tests.integration.brokers import broker_or_skip
from tests.integration.hub_process import wait_for


@pytest.fixture
def topic(tmp_path: Path) -> Iterator[MqttWorld]:
    world = MqttWorld(tmp_path, broker_or_skip("mosquitto", tmp_path))
    yield world
    world.close()
    world.broker.kill()


def test_a_flood_at_qos_0_is_dropped_counted_and_takes_no_memory(topic: MqttWorld) -> None:
    source = topic.source(ahead=4)
    source.open()
    for _ in range(500):
        topic.link.publish(topic.topic, b"[1]", qos=0)
    assert topic.link.confirm(topic.topic, b"[2]")
    wait_for(lambda: source.counts()["dropped"] == 496, 30, str(source.counts()))
    payloads = [take(source).body.payload for _ in range(5)]
    assert payloads == [b"[1]"] * 4 + [b"[2]"]


def test_a_flood_at_qos_1_waits_at_the_broker_and_none_is_lost(topic: MqttWorld) -> None:
    source = topic.source(ahead=2)
    source.open()
    for number in range(300):
        wait_for(lambda number=number: topic.link.publish(topic.topic, b"%d" % number))  # type: ignore[misc]
    seen = []
    while len(set(seen)) < 300:
        item = take(source)
        seen.append(int(item.body.payload))
        source.done(item)
        assert len(source._waiting) <= 2 + 64  # type: ignore[attr-defined]
    assert sorted(set(seen)) == list(range(300)) and source.counts()["dropped"] == 0


def test_a_flood_that_a_broker_cannot_be_asked_to_hold_back_is_asked_for_again(
    topic: MqttWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_agent.flows.sources import mqtt

    monkeypatch.setattr(mqtt, "_MARGIN", 0)
    source = topic.source(ahead=3)
    # What MQTT 3.1.1 lets a broker do: send more ahead than is wanted.
    real = source._make_link  # type: ignore[attr-defined]
    source._make_link = lambda **o: real(**{**o, "receive_maximum": 0, "version": 4})  # type: ignore[attr-defined]
    source.open()
    for number in range(60):
        assert topic.link.confirm(topic.topic, b"%d" % number)
    seen = set()
    while len(seen) < 60:
        item = take(source)
        seen.add(int(item.body.payload))
        source.done(item)
    assert source.counts()["postponed"] > 0 and source.counts()["dropped"] == 0


def test_a_message_that_is_too_large_is_rejected_or_never_comes(topic: MqttWorld) -> None:
    source = topic.source(max_bytes=2000)
    source.open()
    assert topic.link.confirm(topic.topic, b"x" * 3000)
    assert topic.link.confirm(topic.topic, b"x" * 500_000), "the broker keeps it to itself"
    assert topic.link.confirm(topic.topic, b"[3]")
    item = take(source)
    with pytest.raises(Rejected, match="3000 bytes"):
        source.read(item, MODEL)
    source.reject(item, "too large")
    assert take(source).body.payload == b"[3]"
    (line,) = (topic.folder / "state" / "world" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["bytes"] == 3000 and len(line) < 6000


def test_a_retained_message_is_not_answered_at_every_connect(topic: MqttWorld) -> None:
    assert topic.link.confirm(topic.topic, b"[1]", retain=True)
    source = topic.source()
    source.open()
    assert topic.link.confirm(topic.topic, b"[2]")
    assert take(source).body.payload == b"[2]" and source.counts()["ignored"] == 1


def test_what_is_rejected_is_bounded_on_the_disk(topic: MqttWorld) -> None:
    source = topic.source()
    source.open()
    for _ in range(3):
        assert topic.link.confirm(topic.topic, b"x" * 100_000)
    for _ in range(3):
        item = take(source)
        for _ in range(200):
            source.reject(item, "no")
    state = topic.folder / "state" / "world"
    assert sum(path.stat().st_size for path in state.iterdir()) <= 2 << 20
