"""A fleet that signs, end to end: people's keys, a hub that is killed, a real agent, and nothing but real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop.trust.names import ROOT, TARGETS
from tests.doubles.packages import make_package
from tests.doubles.people import People
from tests.integration.hub_process import wait_for
from tests.integration.secure_fleet import SecureAgent, SecureHub, needs_mosquitto

pytestmark = needs_mosquitto


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[SecureHub]:
    hub = SecureHub(tmp_path / "hub")
    try:
        yield hub.start()
    finally:
        hub.close()


def put(hub: SecureHub, path: str, **body: Any) -> None:
    answer = hub.api.put(f"/api/v1/{path}", **body)
    assert answer.status_code == 200, answer.text


def test_a_signed_release_reaches_a_device_and_the_hub_may_be_killed_meanwhile(hub: SecureHub, tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    people = People(hub.get("trust"), time.time(), package.name)
    for role in (ROOT, TARGETS):
        put(hub, f"trust/metadata/{role}", content=people.file(role))
    files = {entry.sha256: (package.root / entry.path).read_bytes() for entry in package.index.entries}
    digest = hub.publish(package.index.to_bytes(), files)
    offer = {"json": {"digest": digest}}
    assert hub.api.post("/api/v1/channels/stable/releases", **offer).status_code == 409, "nobody has signed it"
    role, content = people.release(package)
    put(hub, f"trust/metadata/{role}", content=content)
    assert hub.api.post("/api/v1/channels/stable/releases", **offer).status_code == 200

    agent = SecureAgent(tmp_path / "agent", device="cam-1")
    done = agent.enrol(hub.url, hub.token(device="cam-1", channel="stable"))
    assert done.returncode == 0, done.stderr
    assert (agent.data / "identity" / "root.json").read_bytes() == people.fleet.pinned
    try:
        agent.start()
        wait_for(
            lambda: any(device["release"] == digest for device in hub.get("devices")),
            what=f"the release\n{agent.log}\n{hub.log}",
            timeout_s=60,
        )
        hub.kill()
        hub.start()
        put(hub, "channels/stable", json={"policy": {"insights": {"bytes_per_day": 100_000}}})
        serial = hub.get("channels/stable")["serial"]
        wait_for(lambda: agent.status()["messaging"]["serial"] == serial, what="what was changed since", timeout_s=60)
        assert agent.status()["trust"]["refused"] == 0
        index = package.index.to_bytes()
        assert hub.api.put(f"/api/v1/blobs/{digest.removeprefix('sha256:')}", content=index).status_code == 201
        asked = hub.api.post("/api/v1/trials", json={"device": "cam-1", "digest": digest})
        assert asked.status_code == 202, asked.text
        trial = f"trials/{asked.json()['id']}"
        # The wish is signed, and the device's owner has not allowed any.
        wait_for(lambda: hub.get(trial)["state"] == "refused", what="the device's answer", timeout_s=60)
        assert "trials = false" in hub.get(trial)["reason"]
        assert agent.status()["trust"]["refused"] == 0
    finally:
        agent.close()
