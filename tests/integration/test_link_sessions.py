"""Sessions that outlive a connection, and publishes that are waited for: what a link promises to sources and sinks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeloop.protocol.connection import Delivery
from edgeloop.protocol.link import Link
from tests.integration.brokers import BrokerProcess, broker_or_skip
from tests.integration.hub_process import wait_for


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite free/#\n")
    acl.chmod(0o600)
    running = broker_or_skip("mosquitto", tmp_path, more=f"acl_file {acl}\nmax_packet_size 20000")
    yield running
    running.kill()


@pytest.fixture(params=[5, 4], ids=["mqtt5", "mqtt311"])
def links(request: pytest.FixtureRequest, broker: BrokerProcess) -> Iterator[Callable[..., Link]]:
    made: list[Link] = []

    def make(name: str, **options: object) -> Link:
        link = Link("127.0.0.1", broker.port, name, backoff_s=(0.02, 0.1), version=request.param, **options)  # type: ignore[arg-type]
        made.append(link)
        return link

    yield make
    for link in made:
        link.stop(1.0)


def connected(link: Link) -> Link:
    link.start()
    wait_for(lambda: link.connected, 20, "a connection")
    return link


def test_what_was_published_meanwhile_and_what_was_not_acknowledged_comes_after_a_restart(
    links: Callable[..., Link],
) -> None:
    writer = connected(links("writer"))
    got: list[tuple[bytes, Delivery]] = []

    def reader() -> Link:
        link = links("reader", manual_ack=True, session_s=3600)
        link.subscribe("free/t", lambda topic, payload, ack: got.append((payload, ack)))
        return connected(link)

    first = reader()
    assert not first.session_present
    for payload in (b"1", b"2"):
        assert writer.confirm("free/t", payload)
    wait_for(lambda: len(got) == 2, 20, "two messages")
    got[0][1]()
    first.stop(1.0)
    assert writer.confirm("free/t", b"3")
    got.clear()
    second = reader()
    assert second.session_present
    wait_for(lambda: len(got) == 2, 20, "the second again, and the third")
    assert [payload for payload, _ in got] == [b"2", b"3"]
    assert all(ack.qos == 1 and not ack.retained for _, ack in got)


def test_a_reconnect_brings_what_was_not_acknowledged_again(links: Callable[..., Link]) -> None:
    writer, got = connected(links("writer")), list[bytes]()
    reader = links("reader", manual_ack=True, session_s=3600)
    reader.subscribe("free/t", lambda topic, payload, ack: got.append(payload))
    connected(reader)
    assert writer.confirm("free/t", b"1")
    wait_for(lambda: got == [b"1"], 20, "the message")
    reader.reconnect()
    wait_for(lambda: got == [b"1", b"1"], 20, "the message again")
    assert reader.counters.connections == 2


def test_a_link_without_a_session_begins_anew(links: Callable[..., Link]) -> None:
    writer = connected(links("writer"))
    got: list[bytes] = []
    first = links("reader")
    first.subscribe("free/t", lambda topic, payload: got.append(payload))
    connected(first).stop(1.0)
    assert writer.confirm("free/t", b"1")
    second = links("reader")
    second.subscribe("free/t", lambda topic, payload: got.append(payload))
    connected(second)
    assert not second.session_present
    assert writer.confirm("free/t", b"2")
    wait_for(lambda: got, 20, "a message")
    assert got == [b"2"]


def test_a_delivery_says_what_it_is(links: Callable[..., Link]) -> None:
    writer = connected(links("writer"))
    assert writer.confirm("free/kept", b"kept", retain=True)
    got: dict[bytes, Delivery] = {}
    reader = links("reader", manual_ack=True)
    reader.subscribe("free/#", lambda topic, payload, ack: got.__setitem__(payload, ack))
    connected(reader)
    wait_for(lambda: b"kept" in got, 20, "the retained message")
    assert writer.publish("free/now", b"quick", qos=0)
    assert writer.confirm("free/now", b"sure")
    wait_for(lambda: len(got) == 3, 20, "all")
    assert (got[b"kept"].retained, got[b"quick"].retained, got[b"sure"].retained) == (True, False, False)
    assert (got[b"quick"].qos, got[b"sure"].qos) == (0, 1)


def test_a_confirmation_is_the_brokers_word(links: Callable[..., Link], broker: BrokerProcess) -> None:
    writer = connected(links("writer"))
    assert writer.confirm("free/t", b"x")
    if writer.version == 5:  # 3.1.1 acknowledges what it forbids
        assert not writer.confirm("forbidden/t", b"x")
        assert writer.packet_limit == 20000
        assert not writer.confirm("free/t", b"x" * 30_000)
    assert writer.confirm("free/t", b"x")
    broker.pause()
    assert not writer.confirm("free/t", b"x", timeout_s=0.2)
    broker.resume()
    broker.kill()
    wait_for(lambda: not writer.connected, 20, "the loss")
    assert not writer.confirm("free/t", b"x")
    assert not links("never").confirm("free/t", b"x")
