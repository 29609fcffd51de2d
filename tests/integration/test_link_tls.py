"""The link over TLS, at a real Mosquitto: whom it trusts, as whom it comes, and clocks that are wrong."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud_hub.broker_config import BrokerFiles, mosquitto_config, mosquitto_rules
from edge_agent.identity import GivenTls, Identity, TlsOf, tls_context
from edge_agent.identity.tls import NO_CHECK_TIME
from edgeloop.protocol import Topics
from edgeloop.protocol.link import Link
from tests.doubles.fleet_ca import Credentials, FleetCA
from tests.integration.brokers import find_mosquitto, free_port
from tests.integration.hub_process import wait_for

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="apt-get install mosquitto")
TOPICS = Topics("test")


class Broker:
    """A Mosquitto with a server certificate of one's choice."""

    def __init__(self, folder: Path, ca: FleetCA, server: Credentials) -> None:
        self.ca, self.port = ca, free_port()
        folder.mkdir()
        files = BrokerFiles(ca.file, None, server.certificate, server.key, folder / "rules.acl")
        files.rules.write_text(mosquitto_rules(TOPICS, "hub:test", "observer:test", {"dev-1": ["stable"]}))
        files.rules.chmod(0o600)
        config = folder / "mosquitto.conf"
        config.write_text(mosquitto_config("127.0.0.1", self.port, files))
        self.process = subprocess.Popen(
            [str(find_mosquitto()), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> FleetCA:
    return FleetCA(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def broker(ca: FleetCA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker") / "b", ca, ca.issue("127.0.0.1", "server"))
    yield broker
    broker.stop()


@pytest.fixture
def linked() -> Iterator[Callable[..., Link]]:
    links: list[Link] = []

    def make(port: int, tls: object, host: str = "127.0.0.1") -> Link:
        link = Link(host, port, "dev-1", tls=tls, backoff_s=(0.02, 0.1), version=5)  # type: ignore[arg-type]
        links.append(link)
        link.start()
        return link

    yield make
    for link in links:
        link.stop(1.0)


def identity(folder: Path, ca: FleetCA, who: Credentials, begins: float = 0.0) -> Identity:
    """What an enrolment leaves, with these credentials."""
    folder.mkdir(exist_ok=True)
    (folder / "device.crt").write_bytes(who.certificate.read_bytes())
    (folder / "device.key").write_bytes(who.key.read_bytes())
    (folder / "ca.crt").write_bytes(ca.file.read_bytes())
    return Identity(folder, "dev-1", "test", "https://hub", "127.0.0.1", 1, ("stable",), 0.0, begins, begins + 1e6)


def test_messages_go_both_ways_and_large_ones_whole(broker: Broker, ca: FleetCA, linked: Callable[..., Link]) -> None:
    got: list[bytes] = []
    hub = linked(broker.port, ca.context(ca.issue("hub:test", "hub")))
    hub.subscribe(TOPICS.every("insights"), lambda _topic, payload: got.append(payload))
    device = linked(broker.port, ca.context(ca.issue("dev-1")))
    wait_for(lambda: hub.subscribed and device.connected, what="both to connect")
    sent = [bytes([number]) * size for number, size in enumerate((0, 1, 1000, 200_000, 1_000_000) * 4)]
    for payload in sent:
        wait_for(lambda payload=payload: device.publish(TOPICS.insights("dev-1"), payload))
    wait_for(lambda: len(got) == len(sent), what="every message")
    assert got == sent


def test_who_is_not_trusted_is_not_spoken_to(
    broker: Broker, ca: FleetCA, linked: Callable[..., Link], tmp_path: Path
) -> None:
    strangers = FleetCA(tmp_path / "strangers")
    trusts_others = strangers.context(strangers.issue("dev-1"))
    link = linked(broker.port, trusts_others)
    wait_for(lambda: "certificate verify failed" in link.last_error, what="the broker to be refused")
    other_name = linked(broker.port, ca.context(ca.issue("dev-1")), host="127.0.0.2")
    wait_for(lambda: "127.0.0.2" in other_name.last_error, what="another address to be refused")
    assert not link.connected and not other_name.connected
    assert link.counters.connections == 0


def test_a_device_cannot_play_the_broker(ca: FleetCA, linked: Callable[..., Link], tmp_path: Path) -> None:
    """Its certificate is a client's; the broker's name in it does not help either."""
    fake = Broker(tmp_path / "fake", ca, ca.issue("127.0.0.1", "device"))
    try:
        link = linked(fake.port, ca.context(ca.issue("dev-1")))
        wait_for(lambda: "certificate" in link.last_error, what="the fake to be refused")
        assert link.counters.connections == 0
    finally:
        fake.stop()


def test_each_connection_asks_for_its_context_and_lives_with_what_it_says(
    broker: Broker, ca: FleetCA, linked: Callable[..., Link]
) -> None:
    good, asked = ca.context(ca.issue("dev-1")), 0

    def context() -> ssl.SSLContext:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise OSError("the file is being written")
        return good

    link = linked(broker.port, context)
    wait_for(lambda: link.connected, what="the context to be there")
    assert asked == 3


def test_a_renewed_certificate_is_the_one_of_the_next_connection(
    broker: Broker, ca: FleetCA, linked: Callable[..., Link], tmp_path: Path
) -> None:
    stranger = FleetCA(tmp_path / "strangers").issue("dev-1")
    device = identity(tmp_path / "identity", ca, stranger)
    link = linked(broker.port, TlsOf(device))
    wait_for(lambda: link.last_error, what="the wrong one to be refused")
    renewed = ca.issue("dev-1")
    # In this order a connection in between finds a pair that does not match, says so, and tries again.
    device.key.write_bytes(renewed.key.read_bytes())
    device.certificate.write_bytes(renewed.certificate.read_bytes())
    wait_for(lambda: link.connected, what="the new one to be used")


def test_files_of_the_settings_are_read_at_each_connection(
    broker: Broker, ca: FleetCA, linked: Callable[..., Link], tmp_path: Path
) -> None:
    who = ca.issue("dev-1")
    link = linked(broker.port, GivenTls(tmp_path / "ca.crt", who.certificate, who.key))
    wait_for(lambda: "ca.crt" in link.last_error, what="the missing file to be named")
    (tmp_path / "ca.crt").write_bytes(ca.file.read_bytes())
    wait_for(lambda: link.connected, what="the connection")


def test_a_server_whose_certificate_has_ended_is_refused_and_the_reason_names_the_clock(
    ca: FleetCA, linked: Callable[..., Link], tmp_path: Path
) -> None:
    """What a device with a clock that is 400 days ahead sees of a good broker."""
    then = datetime.now(UTC) - timedelta(days=40)
    broker = Broker(tmp_path / "b", ca, ca.issue("127.0.0.1", "server", begins=then))
    try:
        link = linked(broker.port, tls_context(identity(tmp_path / "i", ca, ca.issue("dev-1"))))
        wait_for(lambda: "the clock here says" in link.last_error, what="the reason")
        assert not link.connected
    finally:
        broker.stop()


def test_a_device_in_1970_is_let_in_since_it_does_not_judge_times(
    ca: FleetCA, linked: Callable[..., Link], tmp_path: Path
) -> None:
    """The certificate is not valid by the device's clock; here the broker's begins tomorrow, which is the same."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    broker = Broker(tmp_path / "b", ca, ca.issue("127.0.0.1", "server", begins=tomorrow))
    try:
        device = identity(tmp_path / "i", ca, ca.issue("dev-1"), begins=1_790_000_000.0)
        right = linked(broker.port, tls_context(device, now=1_790_000_001.0))
        wait_for(lambda: "the clock here says" in right.last_error, what="a clock that may be right to judge")
        lost_power = linked(broker.port, tls_context(device, now=3.0))
        wait_for(lambda: lost_power.connected, what="one that cannot be right not to")
    finally:
        broker.stop()


def test_the_clock_is_looked_at_again_when_it_was_set(ca: FleetCA, tmp_path: Path) -> None:
    now = [0.0]
    contexts = TlsOf(identity(tmp_path / "i", ca, ca.issue("dev-1"), begins=1_790_000_000.0), clock=lambda: now[0])
    first = contexts()
    assert first.verify_flags & NO_CHECK_TIME
    assert contexts() is first
    now[0] = 1_790_000_001.0
    assert not contexts().verify_flags & NO_CHECK_TIME
    assert contexts().verify_mode == ssl.CERT_REQUIRED
    assert contexts().check_hostname
