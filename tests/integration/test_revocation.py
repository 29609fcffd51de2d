"""A device loses its rights while it is connected: real hub, its own Mosquitto, judged by what is delivered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311

from edge_agent.identity import Identity, tls_context
from edge_agent.identity.enrol import enrol
from edgeloop.protocol import Presence
from edgeloop.protocol.enrolment import EnrolmentToken
from tests.doubles.mqtt_attacker import MqttAttacker
from tests.integration.hub_process import wait_for
from tests.integration.secure_fleet import SecureHub, needs_mosquitto

pytestmark = needs_mosquitto
ROOT = "edgeloop/v1/test"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureHub]:
    hub = SecureHub(tmp_path_factory.mktemp("hub"))
    try:
        yield hub.start()
    finally:
        hub.close()


def enrolled(hub: SecureHub, folder: Path, name: str, **wanted: object) -> Identity:
    return enrol(folder, name, hub.url, EnrolmentToken.parse(hub.token(device=name, **wanted)))


def client(identity: Identity, version: int = MQTTv5) -> MqttAttacker:
    return MqttAttacker(identity.broker_port, tls_context(identity), version)


def presence(hub: SecureHub, device: str) -> bool | None:
    return next((bool(one["online"]) for one in hub.get("devices") if one["device"] == device), None)


@pytest.mark.parametrize("version", [MQTTv311, MQTTv5], ids=["3.1.1", "5"])
def test_a_revoked_device_is_cut_off_and_another_one_is_not(hub: SecureHub, tmp_path: Path, version: int) -> None:
    bad, good = f"bad-{version}", f"good-{version}"
    stolen, honest = enrolled(hub, tmp_path / "a", bad), enrolled(hub, tmp_path / "b", good)
    thief, other = client(stolen, version).connect(), client(honest, version).connect()
    online = f"{ROOT}/d/{bad}/presence"
    thief.publish(online, Presence(bad, True, 1, "0").to_bytes())
    wait_for(lambda: presence(hub, bad), what="the device's presence while it has rights")
    done = hub.command("devices", "revoke", bad, "--reason", "stolen")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: thief.ended, what="the open connection to end")
    # Whatever it had stays; it is not let in any more, and its name is on no message.
    wait_for(lambda: presence(hub, bad) is False, what="the hub to see it go")
    again = client(stolen, version)
    assert not again.try_to_connect()
    again.publish(online, Presence(bad, True, 1, "0").to_bytes())
    for one in (thief, other, again):
        one.close()
    back = client(honest, version)
    wait_for(back.try_to_connect, what="the broker to let the other one in")
    back.publish(f"{ROOT}/d/{good}/presence", Presence(good, True, 1, "0").to_bytes())
    wait_for(lambda: presence(hub, good), what="the other one's presence")
    assert presence(hub, bad) is False
    listed = hub.command("devices", "list").stdout
    assert f"{bad}  stable  revoked: stolen" in listed
    # The same name with another key: a new device, and the old certificate stays what it is.
    fresh = enrolled(hub, tmp_path / "c", bad)
    assert client(fresh, version).connect().connected
    assert not client(stolen, version).try_to_connect()
    back.close()


def test_rights_hold_when_a_device_is_told_that_it_has_them(hub: SecureHub, tmp_path: Path) -> None:
    """Else what it says first would be dropped, and what is retained for it would never come."""
    for number in range(5):
        name = f"quick-{number}"
        device = client(enrolled(hub, tmp_path / str(number), name, channels=["day"])).connect()
        device.publish(f"{ROOT}/d/{name}/presence", Presence(name, True, 1, "0").to_bytes())
        wait_for(lambda name=name: presence(hub, name), what="what the device says first")
        device.close()


def test_a_device_may_read_the_channel_that_the_hub_moves_it_to(hub: SecureHub, tmp_path: Path) -> None:
    enrolled(hub, tmp_path, "moved", channels=["day"])
    right = f"topic read {ROOT}/c/night"
    assert right not in block(hub, "moved")
    answer = hub.api.put("/api/v1/devices/moved/desired", json={"channel": "night"})
    assert answer.status_code == 200, answer.text
    assert right in block(hub, "moved")
    assert f"topic read {ROOT}/c/day" in block(hub, "moved")


def block(hub: SecureHub, device: str) -> list[str]:
    """What the broker's rules say of a device."""
    blocks = (hub.data / "broker" / "rules.acl").read_text().split("\n\n")
    return next(one.splitlines() for one in blocks if one.startswith(f"user {device}\n"))
