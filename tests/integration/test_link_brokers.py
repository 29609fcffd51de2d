"""One suite over every broker that edgeloop is used with: what Link promises, on real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop.protocol.link import Link
from tests.integration.brokers import BrokerProcess, broker_or_skip, free_port


def wait_for(what: Callable[[], object], seconds: float = 10.0) -> None:
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
def links() -> Iterator[Callable[..., Link]]:
    made: list[Link] = []

    def make(port: int, name: str, **options: object) -> Link:
        link = Link("127.0.0.1", port, name, backoff_s=(0.05, 0.3), **options)  # type: ignore[arg-type]
        made.append(link)
        return link

    yield make
    for link in made:
        link.stop(1.0)


def test_messages_arrive_in_order_with_the_version_that_the_broker_speaks(
    broker: BrokerProcess, links: Callable[..., Link]
) -> None:
    got: list[bytes] = []
    reader, writer = links(broker.port, "reader"), links(broker.port, "writer")
    reader.subscribe("a/+/c", lambda topic, payload: got.append(payload))
    reader.start()
    writer.start()
    wait_for(lambda: reader.connected and writer.connected)
    time.sleep(0.2)
    sent = [b"%d" % i for i in range(300)]
    for payload in sent:
        wait_for(lambda payload=payload: writer.publish("a/b/c", payload))  # type: ignore[misc]
    wait_for(lambda: len(got) == 300)
    assert got == sent
    assert reader.version == writer.version == (5 if broker.kind == "mosquitto" else 4)
    assert writer.counters.messages_out == reader.counters.messages_in == 300
    assert reader.counters.bytes_in == sum(len(payload) + 5 for payload in sent)


def test_a_retained_message_meets_a_later_subscriber(broker: BrokerProcess, links: Callable[..., Link]) -> None:
    writer = links(broker.port, "writer")
    writer.start()
    wait_for(lambda: writer.connected)
    assert writer.publish("kept", b"document", retain=True)
    writer.stop(2.0)
    got: list[bytes] = []
    reader = links(broker.port, "reader")
    reader.start()
    wait_for(lambda: reader.connected)
    reader.subscribe("kept", lambda topic, payload: got.append(payload))
    wait_for(lambda: got == [b"document"])


def test_the_will_is_published_after_a_crash_and_not_after_a_goodbye(
    broker: BrokerProcess, links: Callable[..., Link]
) -> None:
    got: list[bytes] = []
    reader = links(broker.port, "reader")
    reader.subscribe("will/+", lambda topic, payload: got.append(payload))
    reader.start()
    polite = links(broker.port, "polite", will=("will/polite", b"gone"))
    rude = links(broker.port, "rude", will=("will/rude", b"crashed"))
    for link in (polite, rude):
        link.start()
    wait_for(lambda: reader.connected and polite.connected and rude.connected)
    time.sleep(0.2)
    polite.stop(2.0)
    # What a crash looks like to a broker: the socket goes without a DISCONNECT.
    rude._stopping.set()
    rude._connection._client.wire._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    wait_for(lambda: got)
    time.sleep(0.3)
    assert got == [b"crashed"]


def test_it_waits_for_a_broker_that_is_not_there_and_survives_one_that_is_killed(
    broker: BrokerProcess, links: Callable[..., Link]
) -> None:
    broker.kill()
    got: list[bytes] = []
    connects: list[float] = []
    link = links(broker.port, "patient")
    link.subscribe("t", lambda topic, payload: got.append(payload))
    link.on_connect(lambda: connects.append(time.monotonic()))
    link.start()
    time.sleep(0.3)
    assert not link.connected
    assert not link.publish("t", b"lost")
    assert f"127.0.0.1:{broker.port}" in link.last_error
    for round_ in range(2):
        broker.start()
        wait_for(lambda: link.connected)
        wait_for(lambda round_=round_: link.publish("t", b"%d" % round_))  # type: ignore[misc]
        wait_for(lambda round_=round_: got == [b"%d" % i for i in range(round_ + 1)])  # type: ignore[misc]
        broker.kill()
        wait_for(lambda: not link.connected)
    assert len(connects) == 2
    assert link.counters.connections == 2
    assert link.counters.dropped >= 1


def test_a_handler_that_raises_costs_its_message_only(broker: BrokerProcess, links: Callable[..., Link]) -> None:
    got: list[bytes] = []

    def handler(topic: str, payload: bytes) -> None:
        if payload == b"bad":
            raise ZeroDivisionError
        got.append(payload)

    link = links(broker.port, "tough")
    link.subscribe("t", handler)
    link.start()
    wait_for(lambda: link.connected)
    for payload in (b"1", b"bad", b"2"):
        wait_for(lambda payload=payload: link.publish("t", payload))  # type: ignore[misc]
    wait_for(lambda: got == [b"1", b"2"])
    assert link.counters.failed == 1


def test_a_callback_may_publish_and_the_queue_is_bounded_when_the_broker_hangs(
    broker: BrokerProcess, links: Callable[..., Link]
) -> None:
    got: list[bytes] = []
    link = links(broker.port, "chatty", max_queued=50)
    link.subscribe("ping", lambda topic, payload: link.publish("pong", payload) or None)
    link.subscribe("pong", lambda topic, payload: got.append(payload))
    link.start()
    wait_for(lambda: link.connected)
    wait_for(lambda: link.publish("ping", b"x"))
    wait_for(lambda: got == [b"x"])
    wait_for(lambda: link._connection is not None and link._connection.drained())  # the pong has room until then
    broker.pause()
    try:
        # A publisher that waited for the broker would never come back.
        taken = sum(link.publish("elsewhere", bytes(1000)) for _ in range(500))
        assert taken == 50
    finally:
        broker.resume()
    wait_for(lambda: link.publish("elsewhere", b"again"))


def test_unacknowledged_messages_hold_back_the_broker_until_another_thread_acknowledges(
    broker: BrokerProcess, links: Callable[..., Link]
) -> None:
    held: list[Callable[[], None]] = []
    reader, writer = links(broker.port, "reader", manual_ack=True), links(broker.port, "writer")
    reader.subscribe("t", lambda topic, payload, ack: held.append(ack))
    reader.start()
    writer.start()
    wait_for(lambda: reader.connected and writer.connected)
    time.sleep(0.2)
    for i in range(60):
        wait_for(lambda i=i: writer.publish("t", b"%d" % i))  # type: ignore[misc]
    wait_for(lambda: len(held) >= 20)
    if broker.kind == "mosquitto":  # aMQTT has no in-flight window
        time.sleep(0.3)
        assert len(held) == 20

    def release() -> None:
        done = 0
        until = time.monotonic() + 10
        while done < 60 and time.monotonic() < until:
            for ack in held[done:]:
                ack()
                ack()  # the second time is without effect
                done += 1
            time.sleep(0.001)

    thread = threading.Thread(target=release, name="releases acknowledgements")
    thread.start()
    wait_for(lambda: len(held) == 60)
    thread.join()
    assert reader.connected


def test_stop_delivers_what_was_queued(broker: BrokerProcess, links: Callable[..., Link]) -> None:
    got: list[bytes] = []
    reader, writer = links(broker.port, "reader"), links(broker.port, "writer")
    reader.subscribe("t", lambda topic, payload: got.append(payload))
    reader.start()
    writer.start()
    wait_for(lambda: reader.connected and writer.connected)
    time.sleep(0.2)
    for i in range(200):
        assert writer.publish("t", b"%d" % i)
    writer.stop(5.0)
    wait_for(lambda: len(got) == 200)


def test_a_refused_subscription_is_counted_and_a_refused_publish_too(
    tmp_path: Path, links: Callable[..., Link]
) -> None:
    rules = tmp_path / "rules.acl"
    rules.write_text("topic read allowed/#\ntopic write open\n")
    broker = broker_or_skip("mosquitto", tmp_path, more=f"acl_file {rules}")
    try:
        link = links(broker.port, "nosy")
        link.start()
        wait_for(lambda: link.connected)
        assert link.publish("forbidden", b"x")
        wait_for(lambda: link.counters.refused == 1)
    finally:
        broker.kill()


def test_a_broker_that_answers_with_garbage_or_silence_does_not_end_the_link(links: Callable[..., Link]) -> None:
    port = free_port()
    link = links(port, "steady")
    answers = [b"\x00" * 50, b"\x20\x02\x00", b"\xff" * 9, b"", b"\x20\x03\x00\x00\xff", b"HTTP/1.1 400 no\r\n\r\n"]
    served = 0
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(5)
        link.start()
        for _ in range(12):
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(answers[served % len(answers)])
                served += 1
                time.sleep(0.05)
    assert served == 12
    assert not link.connected
    assert link.last_error


def test_a_link_that_is_stopped_while_it_connects_does_not_stay(
    broker: BrokerProcess, links: Callable[..., Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting, go_on, connect = threading.Event(), threading.Event(), socket.create_connection

    def slowly(*arguments: Any, **named: Any) -> socket.socket:
        connecting.set()
        assert go_on.wait(20)
        return connect(*arguments, **named)

    monkeypatch.setattr(socket, "create_connection", slowly)
    link = links(broker.port, "late")
    link.start()
    assert connecting.wait(10)
    link.stop(0.1)
    go_on.set()
    assert link._thread is not None
    link._thread.join(10)
    assert not link._thread.is_alive() and not link.connected
