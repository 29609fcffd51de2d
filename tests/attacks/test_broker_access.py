"""Devices that want more than is theirs, at a Mosquitto with our configuration, judged by what is delivered.

Return codes say little: Mosquitto acknowledges subscriptions, and on MQTT 3.1.1 publishes, that its rules forbid. So
each test sends a message that must arrive after those that must not, and then looks at all that came.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311

from cloud_hub.broker_config import BrokerFiles, mosquitto_config, mosquitto_rules
from edgeloop.protocol import Topics
from tests.doubles.fleet_ca import Credentials, FleetCA
from tests.doubles.mqtt_attacker import MqttAttacker, wait_until
from tests.integration.brokers import find_mosquitto, free_port

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="apt-get install mosquitto")

ROOT = "edgeloop/v1/test"
VERSIONS = pytest.mark.parametrize("version", [MQTTv311, MQTTv5], ids=["3.1.1", "5"])


@dataclass
class Fleet:
    """A broker, and who has a certificate."""

    port: int
    ca: FleetCA
    strangers: FleetCA
    hub: Credentials
    one: Credentials
    two: Credentials
    revoked: Credentials
    witness: Credentials

    def client(self, who: Credentials | None, version: int, **more: object) -> MqttAttacker:
        """A client with this certificate, not connected."""
        return MqttAttacker(self.port, self.ca.context(who), version, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("broker")
    ca = FleetCA(folder / "ca")
    fleet = Fleet(
        free_port(),
        ca,
        FleetCA(folder / "strangers"),
        hub=ca.issue("hub:test", "hub"),
        one=ca.issue("cam-1"),
        two=ca.issue("cam-2"),
        revoked=ca.issue("cam-1"),
        witness=ca.issue("witness"),
    )
    server = ca.issue("127.0.0.1", "server")
    files = BrokerFiles(ca.file, folder / "crl.pem", server.certificate, server.key, folder / "rules.acl")
    ca.revoke(folder / "crl.pem", fleet.revoked)
    rules = mosquitto_rules(Topics("test"), "hub:test", "observer:test", {"cam-1": ["stable"], "cam-2": ["night"]})
    # Somebody has to see whatever gets through, wherever it goes.
    files.rules.write_text(f"{rules}\nuser witness\ntopic readwrite #\ntopic read $SYS/#\n")
    files.rules.chmod(0o600)
    config = folder / "mosquitto.conf"
    config.write_text(mosquitto_config("127.0.0.1", fleet.port, files))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(find_mosquitto()), "-c", str(config)], stdout=log, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or fleet.client(fleet.witness, MQTTv5).try_to_connect())
        assert process.poll() is None, (folder / "log").read_text()
        yield fleet
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def opened() -> Iterator[Callable[[MqttAttacker], MqttAttacker]]:
    """Connects a client, which is closed at the end."""
    clients: list[MqttAttacker] = []

    def open_one(client: MqttAttacker) -> MqttAttacker:
        clients.append(client)
        return client.connect()

    yield open_one
    for client in clients:
        client.close()


Opened = Callable[[MqttAttacker], MqttAttacker]


def witness(fleet: Fleet, opened: Opened, version: int) -> MqttAttacker:
    """Somebody who gets whatever is published."""
    client = opened(fleet.client(fleet.witness, version))
    client.subscribe("#")
    return client


FOREIGN = (
    f"{ROOT}/d/cam-2/reported",
    f"{ROOT}/d/cam-2/insights",
    f"{ROOT}/d/cam-2/ack",
    f"{ROOT}/d/cam-1/ack",
    f"{ROOT}/d/cam-1/answers",
    f"{ROOT}/d/cam-1/desired",
    f"{ROOT}/d/cam-1/reported/more",
    f"{ROOT}/d/cam-1",
    f"{ROOT}/d//reported",
    f"{ROOT}/c/stable",
    f"{ROOT}/c/night",
    f"{ROOT}/fence",
    "edgeloop/v1/other/d/cam-1/reported",
    "edgeloop/v1/test/D/cam-1/reported",
    "edgeloop/v2/test/d/cam-1/reported",
    "/" + f"{ROOT}/d/cam-1/reported",
    "anything",
)


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_a_device_publishes_on_foreign_topics_reaches_nobody(
    fleet: Fleet, opened: Opened, version: int, qos: int
) -> None:
    seen, device = witness(fleet, opened, version), opened(fleet.client(fleet.one, version))
    end = f"end {version} {qos}".encode()
    for topic in FOREIGN:
        device.publish(topic, f"forged on {topic}".encode(), qos=qos, retain=True)
    device.publish(f"{ROOT}/d/cam-1/reported", end, qos=qos)
    seen.wait_for(end)
    assert not device.ended, "every one of them has reached the broker"
    assert not [body for _, body in seen.received if body.startswith(b"forged")]
    late = witness(fleet, opened, version)
    late.publish("end of what is retained", end)
    late.wait_for(end)
    assert not [body for _, body in late.received if body.startswith(b"forged")]


@VERSIONS
@pytest.mark.parametrize(
    "wanted",
    [
        "#",
        "+/#",
        "+/+/+/+/+/+",
        f"{ROOT}/#",
        f"{ROOT}/d/#",
        f"{ROOT}/d/+/ack",
        f"{ROOT}/d/cam-2/ack",
        f"{ROOT}/d/cam-2/reported",
        f"{ROOT}/c/+",
        f"{ROOT}/c/night",
        "$share/group/#",
        f"$share/group/{ROOT}/d/cam-2/ack",
        f"$share/group/{ROOT}/c/night",
        "$SYS/#",
        "$SYS/broker/clients/connected",
        "+/broker/version",
    ],
)
def test_what_is_not_for_a_device_is_not_delivered_to_it(
    fleet: Fleet, opened: Opened, version: int, wanted: str
) -> None:
    hub = opened(fleet.client(fleet.hub, version))
    secret, end = b"not for cam-1", f"end {version} {wanted}".encode()
    hub.publish(f"{ROOT}/d/cam-2/ack", secret, retain=True)
    hub.publish(f"{ROOT}/c/night", secret, retain=True)
    device = opened(fleet.client(fleet.one, version))
    device.subscribe(wanted, f"{ROOT}/d/cam-1/ack")
    for topic in ("d/cam-2/ack", "d/cam-2/answers", "d/cam-2/desired", "d/cam-2/reported", "c/night"):
        hub.publish(f"{ROOT}/{topic}", secret)
    hub.publish(f"{ROOT}/d/cam-1/ack", end)
    device.wait_for(end)
    own = {f"{ROOT}/d/cam-1/{kind}" for kind in ("ack", "answers", "desired")} | {f"{ROOT}/c/stable"}
    assert {topic for topic, _ in device.received} <= own
    assert not device.got(secret)


@VERSIONS
def test_who_looks_on_sees_all_of_the_fleet_and_says_nothing(fleet: Fleet, opened: Opened, version: int) -> None:
    seen, hub = witness(fleet, opened, version), opened(fleet.client(fleet.hub, version))
    observer = opened(fleet.client(fleet.ca.issue("observer:test", "hub"), version))
    observer.subscribe(f"{ROOT}/#")
    end = f"end of looking on {version}".encode()
    for topic in (f"{ROOT}/d/cam-1/reported", f"{ROOT}/c/stable", f"{ROOT}/d/cam-1/desired", "anything"):
        observer.publish(topic, b"from the observer", retain=True)
    hub.publish(f"{ROOT}/d/cam-1/ack", end)
    observer.wait_for(end)
    observer.subscribe("a")  # its answer comes after all that was published before
    hub.publish(f"{ROOT}/d/cam-1/ack", end + b".")
    seen.wait_for(end + b".")
    assert not seen.got(b"from the observer")


@VERSIONS
def test_a_device_gets_what_is_for_it(fleet: Fleet, opened: Opened, version: int) -> None:
    hub, device = opened(fleet.client(fleet.hub, version)), opened(fleet.client(fleet.one, version))
    device.subscribe(f"{ROOT}/c/stable", *(f"{ROOT}/d/cam-1/{kind}" for kind in ("ack", "answers", "desired")))
    hub.subscribe(f"{ROOT}/d/+/presence", f"{ROOT}/d/+/reported", f"{ROOT}/d/+/insights")
    for number, topic in enumerate(("c/stable", "d/cam-1/ack", "d/cam-1/answers", "d/cam-1/desired")):
        hub.publish(f"{ROOT}/{topic}", b"down %d" % number)
        device.wait_for(b"down %d" % number)
    for kind in ("presence", "reported", "insights"):
        device.publish(f"{ROOT}/d/cam-1/{kind}", kind.encode())
        hub.wait_for(kind.encode())


@VERSIONS
@pytest.mark.parametrize("topic", [f"{ROOT}/d/cam-2/presence", f"{ROOT}/c/stable", f"{ROOT}/d/cam-1/desired", "will"])
def test_a_will_on_a_foreign_topic_is_not_executed(fleet: Fleet, opened: Opened, version: int, topic: str) -> None:
    seen = witness(fleet, opened, version)
    last, end = f"forged {version} {topic}".encode(), f"end {version} {topic}".encode()
    fleet.client(fleet.one, version, will=(topic, last)).connect().vanish()
    # The broker deals with one after the other: when this will comes, the first one's time is over.
    fleet.client(fleet.one, version, will=(f"{ROOT}/d/cam-1/presence", end)).connect().vanish()
    seen.wait_for(end)
    assert not seen.got(last)


@VERSIONS
def test_a_flood_of_retained_messages_leaves_five_topics_at_most(fleet: Fleet, opened: Opened, version: int) -> None:
    device, seen = opened(fleet.client(fleet.two, version)), witness(fleet, opened, version)
    for number in range(500):
        device.publish(f"{ROOT}/d/cam-2/reported/{number}", b"flood", qos=0, retain=True)
        device.publish(f"{ROOT}/d/cam-2/insights", b"own %d" % number, qos=0, retain=True)
    end = f"end of the flood {version}".encode()
    device.publish(f"{ROOT}/d/cam-2/insights", end, retain=True)
    seen.wait_for(end)
    late = witness(fleet, opened, version)
    late.wait_for(end)
    kept = {topic for topic, _ in late.received if topic.startswith(f"{ROOT}/d/cam-2/")}
    assert kept <= {f"{ROOT}/d/cam-2/{kind}" for kind in ("presence", "reported", "insights", "samples", "ack")}
    assert not late.got(b"flood")


@VERSIONS
def test_the_client_id_of_another_device_does_not_end_its_connection(
    fleet: Fleet, opened: Opened, version: int
) -> None:
    hub, victim = opened(fleet.client(fleet.hub, version)), opened(fleet.client(fleet.one, version, client_id="cam-1"))
    victim.subscribe(f"{ROOT}/d/cam-1/ack")
    for attempt in range(5):
        thief = opened(fleet.client(fleet.two, version, client_id="cam-1", username="cam-1"))
        thief.subscribe(f"{ROOT}/d/cam-1/ack", f"{ROOT}/d/cam-2/ack")
        hub.publish(f"{ROOT}/d/cam-1/ack", b"for cam-1 %d" % attempt)
        hub.publish(f"{ROOT}/d/cam-2/ack", b"for cam-2 %d" % attempt)
        thief.wait_for(b"for cam-2 %d" % attempt)
        victim.wait_for(b"for cam-1 %d" % attempt)
        assert not any(body.startswith(b"for cam-1") for _, body in thief.received)
    assert not victim.ended


@VERSIONS
def test_the_session_of_another_device_cannot_be_taken_over(fleet: Fleet, opened: Opened, version: int) -> None:
    hub = opened(fleet.client(fleet.hub, version))
    away = opened(fleet.client(fleet.one, version, client_id="cam-1", keeps_session=True))
    away.subscribe(f"{ROOT}/d/cam-1/answers")
    away.close()
    secret = f"kept for cam-1 {version}".encode()
    hub.publish(f"{ROOT}/d/cam-1/answers", secret)
    thief = opened(fleet.client(fleet.two, version, client_id="cam-1", keeps_session=True))
    thief.subscribe(f"{ROOT}/d/cam-2/answers")
    hub.publish(f"{ROOT}/d/cam-2/answers", b"for the thief")
    thief.wait_for(b"for the thief")
    assert not thief.got(secret)
    back = opened(fleet.client(fleet.one, version, client_id="whatever", keeps_session=True))
    back.wait_for(secret)


def no_certificate(fleet: Fleet) -> Credentials | None:
    return None


def of_another_authority(fleet: Fleet) -> Credentials | None:
    return fleet.strangers.issue("cam-1")


def of_another_authority_as_the_hub(fleet: Fleet) -> Credentials | None:
    return fleet.strangers.issue("hub:test", "hub")


def revoked(fleet: Fleet) -> Credentials | None:
    return fleet.revoked


def of_a_server(fleet: Fleet) -> Credentials | None:
    return fleet.ca.issue("cam-1", "server")


def ended(fleet: Fleet) -> Credentials | None:
    from datetime import UTC, datetime, timedelta

    return fleet.ca.issue("cam-1", begins=datetime.now(UTC) - timedelta(days=2), days=1)


@VERSIONS
@pytest.mark.parametrize(
    "bad", [no_certificate, of_another_authority, of_another_authority_as_the_hub, revoked, of_a_server, ended]
)
def test_who_has_no_good_certificate_is_not_let_in(
    fleet: Fleet, opened: Opened, version: int, bad: Callable[[Fleet], Credentials | None]
) -> None:
    seen = witness(fleet, opened, version)
    end = f"end {version} {bad.__name__}".encode()
    attacker = fleet.client(bad(fleet), version)
    assert not attacker.try_to_connect()
    attacker.publish(f"{ROOT}/d/cam-1/reported", b"let in")
    opened(fleet.client(fleet.one, version)).publish(f"{ROOT}/d/cam-1/reported", end)
    seen.wait_for(end)
    assert not seen.got(b"let in")
    attacker.close()


@VERSIONS
@pytest.mark.parametrize(
    "name", ["+", "#", "$SYS", "cam-1/#", "+/cam-1", "cam-1 ", "CAM-1", "ghost", "%u", "hub:other"]
)
def test_a_certificate_whose_name_is_no_enrolled_device_gives_no_rights(
    fleet: Fleet, opened: Opened, version: int, name: str
) -> None:
    """The fleet's own authority may be a company's, which signs other names as well."""
    seen, hub = witness(fleet, opened, version), opened(fleet.client(fleet.hub, version))
    end = f"end {version} {name}".encode()
    odd = fleet.client(fleet.ca.issue(name), version)
    if odd.try_to_connect():
        own = [] if "#" in name else [f"{ROOT}/d/{name}/ack"]  # the others are no filters
        odd.subscribe("#", *own, f"{ROOT}/d/cam-1/ack", f"{ROOT}/c/stable")
        for topic in (f"{ROOT}/d/cam-1/reported", f"{ROOT}/d/ghost/reported", f"{ROOT}/c/stable", "anything"):
            odd.publish(topic, b"from somebody odd", retain=True)
    for topic in ("d/cam-1/ack", "d/ghost/ack", "c/stable"):
        hub.publish(f"{ROOT}/{topic}", end)
    hub.publish(f"{ROOT}/d/cam-1/answers", end + b".")
    seen.wait_for(end + b".")
    if odd.connected and not odd.ended:
        odd.subscribe("a")  # its answer comes after all that was sent before
    odd.close()
    assert odd.received == []
    assert not seen.got(b"from somebody odd")
