"""A source and a sink on aMQTT, the broker that a hub brings where there is no Mosquitto: it speaks MQTT 3.1.1 only.

It keeps no message for a client that is away, so that nothing is promised over a restart; while the agent is there,
everything works.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.flow_settings import SINKS, read_all
from edge_agent.flows.assembly import make_sink
from tests.conformance.flows.sinks import result
from tests.conformance.flows.sources import MqttWorld, rows, take
from tests.integration.brokers import broker_or_skip
from tests.integration.hub_process import wait_for


@pytest.fixture
def world(tmp_path: Path) -> Iterator[MqttWorld]:
    world = MqttWorld(tmp_path, broker_or_skip("amqtt", tmp_path))
    yield world
    world.close()
    world.broker.kill()


def test_messages_come_and_results_go(world: MqttWorld) -> None:
    source = world.source()
    source.open()
    given = rows(10)

    def gave() -> bool:
        """Publish until the first has come: the subscription may still be under way."""
        world.give(given[0])
        return source.next(0.2) is not None

    wait_for(gave, 30, "the subscription")
    for row in given:
        world.give(row)
    texts = {json.dumps([float(value) for value in row]).encode() for row in given}
    seen = set[bytes]()
    while seen != texts:
        item = take(source)
        seen.add(item.body.payload)
        source.done(item)

    got: list[bytes] = []
    world.link.subscribe("home/door", lambda topic, payload: got.append(payload))
    table = {"kind": "mqtt", "name": "home", "topic": "home/{source}", "home_assistant": {}}
    sink = make_sink(read_all(SINKS, [table])[0], ["door"], world.device(), world.folder / "sinks")
    sink.start()
    for number in range(10):
        sink.put(result(number), threading.Event())
    wait_for(lambda: sink.counts()["delivered"] == 10, 30, sink.trouble)
    wait_for(lambda: len(got) == 10, 30, "the results")
    assert [json.loads(payload)["id"] for payload in got] == [f"p-{number}" for number in range(10)]
    sink.stop(3.0)
