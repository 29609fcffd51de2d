"""Insights over a real broker: whatever gets lost, doubled or reordered, the hub's totals equal the device's ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.ports import FeedbackItem
from edgeloop.protocol import Ack, Answers, ChannelDocument, Desired, Reported, SignedChannel, SignedDesired
from tests.doubles.recording import record
from tests.integration.agent_parts import AgentParts
from tests.integration.brokers import BrokerProcess, broker_or_skip
from tests.integration.toy_hub import ToyHub
from tests.unit.observing.doubles import batch, profile, release


def wait_for(what: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.01)


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerProcess]:
    running = broker_or_skip(request.param, tmp_path)
    yield running
    running.kill()


@pytest.fixture
def hub(broker: BrokerProcess) -> Iterator[ToyHub]:
    made = ToyHub(broker.port, profile().schema, broker.mqtt_version)
    yield made
    made.stop()


@pytest.fixture
def agent(broker: BrokerProcess, tmp_path: Path) -> Iterator[AgentParts]:
    made = AgentParts(tmp_path / "agent", broker.port, broker.mqtt_version)
    yield made
    made.stop()


def close_windows(agent: AgentParts, count: int, start: int = 0, pause_s: float = 0.0) -> None:
    releases = [release(1), release(2)]
    for i in range(start, start + count):
        inputs, outputs = batch(i % 5 + 1, seed=i)
        record(agent.observing.recorder, releases[i // 10 % 2], f"p-{i}", inputs, outputs, 1000)
        if i % 3 == 0:
            agent.observing.recorder.feedback([FeedbackItem(f"p-{i}", i % 4)])
        agent.observing.recorder.flush()
        time.sleep(pause_s)


def check_exact(agent: AgentParts, hub: ToyHub) -> None:
    wait_for(lambda: agent.observing.outbox.state().rows == 0)
    ledger = agent.observing.ledger
    for name in ("predictions", "feedback", "errors"):
        assert hub.totals[name] == ledger.totals()[name], name
    assert dict(hub.by_release) == {name: totals["predictions"] for name, totals in ledger.by_release().items()}


def test_every_window_is_counted_once_with_good_luck(hub: ToyHub, agent: AgentParts) -> None:
    agent.start()
    close_windows(agent, 100)
    check_exact(agent, hub)
    assert (hub.gaps, hub.totals["predictions"]) == (0, 300)


def test_loss_doubling_and_reordering_cost_no_count(hub: ToyHub, agent: AgentParts) -> None:
    hub.bad_luck = 0.25
    agent.start()
    close_windows(agent, 60, pause_s=0.005)
    check_exact(agent, hub)
    assert hub.duplicates > 0
    assert hub.out_of_order > 0
    assert agent.messaging.sender.state().resent > 0


def test_a_broker_that_is_killed_again_and_again_costs_no_count(
    broker: BrokerProcess, hub: ToyHub, agent: AgentParts
) -> None:
    hub.bad_luck = 0.1
    agent.start()
    wait_for(lambda: agent.messaging.link.connected and hub.link.connected)
    for round_ in range(4):
        close_windows(agent, 15, start=round_ * 30)
        broker.kill()
        close_windows(agent, 15, start=round_ * 30 + 15)
        broker.start()
    check_exact(agent, hub)


def test_a_day_without_a_broker_is_sent_afterwards(tmp_path: Path, broker: BrokerProcess, hub: ToyHub) -> None:
    agent = AgentParts(tmp_path / "small", broker.port, broker.mqtt_version, outbox_bytes=60_000)
    try:
        close_windows(agent, 150)  # never started: there is no connection
        state = agent.observing.outbox.state()
        assert state.bytes <= 60_000
        assert state.rows < state.last_seq == 150
        agent.start()
        check_exact(agent, hub)
    finally:
        agent.stop()


def test_a_hub_that_lost_its_memory_counts_what_the_device_still_has(hub: ToyHub, agent: AgentParts) -> None:
    agent.start()
    close_windows(agent, 10)
    wait_for(lambda: agent.observing.outbox.state().rows == 0)
    hub.marks.clear()
    close_windows(agent, 10, start=10)
    wait_for(lambda: agent.observing.outbox.state().rows == 0)
    assert hub.gaps == 1
    assert hub.totals["predictions"] == agent.observing.ledger.totals()["predictions"]


def test_an_acknowledgement_that_cannot_be_true_forgets_nothing(hub: ToyHub, agent: AgentParts) -> None:
    hub.bad_luck = 1.0  # sees nothing, says nothing
    agent.start()
    close_windows(agent, 5)
    wait_for(lambda: agent.messaging.sender.state().sent >= 5)
    topic, epoch = hub.topics.ack("dev-1"), agent.observing.store.epoch
    for lie in (Ack(epoch, 6), Ack(epoch, 2**62), Ack(epoch + 1, 5)):
        wait_for(lambda lie=lie: hub.link.publish(topic, lie.to_bytes()))  # type: ignore[misc]
    wait_for(lambda: agent.messaging.sender.state().ignored == 3)
    assert agent.observing.outbox.state().rows == 5
    hub.bad_luck = 0.0
    check_exact(agent, hub)


def test_windows_of_an_earlier_run_are_sent_with_their_own_numbers(
    tmp_path: Path, broker: BrokerProcess, hub: ToyHub
) -> None:
    hub.bad_luck = 1.0
    first = AgentParts(tmp_path / "agent", broker.port, broker.mqtt_version)
    first.start()
    close_windows(first, 8)
    wait_for(lambda: first.messaging.sender.state().sent >= 8)
    first.stop()
    hub.bad_luck = 0.0
    second = AgentParts(tmp_path / "agent", broker.port, broker.mqtt_version)
    try:
        second.start()
        check_exact(second, hub)
        assert not second.observing.store.started_unclean
    finally:
        second.stop()


def test_presence_and_reported_tell_the_hub_how_the_device_is(hub: ToyHub, agent: AgentParts) -> None:
    agent.start()
    close_windows(agent, 3)

    def reported() -> Reported:
        return hub.reported["dev-1"]

    wait_for(lambda: "dev-1" in hub.reported and reported().ledger.get("last_seq") == 3)
    assert hub.presence[-1].online
    assert reported().update is not None
    assert reported().update.state == "committed"  # type: ignore[union-attr]
    assert reported().release == "sha256:" + "a" * 64
    assert (reported().variant, reported().provider) == ("cpu-int8", "CPUExecutionProvider")
    assert reported().ledger["predictions"] == agent.observing.ledger.totals()["predictions"]
    assert reported().health["disk_free"] == 5
    assert reported().epoch == agent.observing.store.epoch
    assert abs(reported().clock - time.time()) < 60
    wait_for(lambda: hub.presence and hub.presence[-1].online)
    agent.stop()
    wait_for(lambda: not hub.presence[-1].online)


def test_channel_documents_reach_the_updates_and_older_ones_do_not(
    tmp_path: Path, broker: BrokerProcess, hub: ToyHub, agent: AgentParts
) -> None:
    agent.start()
    wait_for(lambda: hub.link.connected and agent.messaging.link.connected)

    def publish(channel: str, serial: int) -> None:
        document = ChannelDocument(channel, serial, hub="http://127.0.0.1:1")
        payload = SignedChannel(document.to_bytes()).to_bytes()
        wait_for(lambda: hub.link.publish(hub.topics.channel(channel), payload, retain=True))

    for serial in (5, 7, 6, 7, 8):
        publish("stable", serial)
    wait_for(lambda: len(agent.updates.followed) == 4)
    assert [document.serial for document in agent.updates.followed] == [5, 7, 7, 8]
    assert (agent.messaging.state().serial, agent.messaging.state().stale) == (8, 1)

    publish("night-shift", 2)
    desired = SignedDesired(Desired("night-shift").to_bytes()).to_bytes()
    wait_for(lambda: hub.link.publish(hub.topics.desired("dev-1"), desired, retain=True))
    wait_for(lambda: agent.updates.followed[-1].channel == "night-shift")
    assert agent.messaging.channel == "night-shift"
    publish("stable", 9)  # no longer followed
    publish("night-shift", 3)
    wait_for(lambda: agent.updates.followed[-1].serial == 3)
    assert all(document.serial != 9 for document in agent.updates.followed)

    # A broker that plays back an old document after a restart of the agent changes nothing.
    agent.stop()
    publish("night-shift", 1)
    again = AgentParts(tmp_path / "agent", broker.port, broker.mqtt_version)
    try:
        again.start()
        wait_for(lambda: again.messaging.state().stale == 1)
        # The broker may hand out the one that it had, which is the newest, before the old one; never the old one.
        assert all(document.serial >= 3 for document in again.updates.followed if document.channel == "night-shift")
    finally:
        again.stop()


def test_a_channels_policy_is_followed_at_once_and_a_wrong_one_holds_up_no_release(
    hub: ToyHub, agent: AgentParts
) -> None:
    agent.start()
    wait_for(lambda: hub.link.connected and agent.messaging.link.connected)

    def publish(serial: int, policy: dict[str, Any]) -> None:
        document = ChannelDocument("stable", serial, policy=policy)
        payload = SignedChannel(document.to_bytes()).to_bytes()
        wait_for(lambda: hub.link.publish(hub.topics.channel("stable"), payload, retain=True))
        wait_for(lambda: agent.updates.followed and agent.updates.followed[-1].serial == serial)

    publish(1, {"insights": {"min_group": 7}, "of a newer hub": 1})
    wait_for(lambda: agent.observing.policy.current.min_group == 7)
    publish(2, {"insights": {"min_group": -7}})
    wait_for(lambda: agent.messaging.state().malformed == 1)
    assert agent.observing.policy.current.min_group == 7
    publish(3, {})
    wait_for(lambda: agent.observing.policy.current.min_group == 0)


def test_answers_of_the_hub_are_labels(hub: ToyHub, agent: AgentParts) -> None:
    agent.start()
    inputs, outputs = batch(1)
    record(agent.observing.recorder, release(), "asked", inputs, outputs, 1)
    answers = Answers((("asked", "east"), ("never", 1)))
    wait_for(lambda: agent.messaging.link.connected)
    time.sleep(0.2)
    wait_for(lambda: hub.link.publish(hub.topics.answers("dev-1"), answers.to_bytes()))
    kept = agent.observing.recorder._retention
    wait_for(lambda: (found := kept.find("asked", 0)) is not None and found.labelled)
    agent.observing.recorder.flush()
    check_exact(agent, hub)
    assert hub.totals["feedback"] == 1
