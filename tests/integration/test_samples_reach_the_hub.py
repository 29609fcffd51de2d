"""Samples from a real agent to a real hub: small ones over MQTT, large ones over HTTP, none once its owner objects."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.package import Package
from edgeloop.protocol import decode
from edgeloop.protocol.inputs import Tensor
from tests.doubles.packages import make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import HubProcess, wait_for
from tests.unit.hub.api_kit import ApiHub
from tests.unit.sampling.device import EVERYTHING, Device, until

POLICY = {"policy": {"samples": {"strategies": {"random": 1.0}, "per_day": 100_000, "bytes_per_day": 1 << 30}}}


class World:
    """A hub and an agent whose owner consents."""

    def __init__(self, folder: Path, package: Package) -> None:
        self.hub = HubProcess(folder / "hub").start()
        files = {one.sha256: (package.root / one.path).read_bytes() for one in package.index.entries}
        digest = self.hub.publish(package.index.to_bytes(), files)
        self.put("channels/stable", POLICY)
        self.hub.api.post("/api/v1/channels/stable/releases", json={"digest": digest}).raise_for_status()
        self.agent = AgentProcess(
            folder / "agent",
            insecure=True,
            hub=str(self.hub.api.base_url).rstrip("/"),
            broker_port=self.hub.broker_port,
            samples=True,
        )

    def put(self, path: str, body: Any) -> None:
        self.hub.api.put(f"/api/v1/{path}", json=body).raise_for_status()

    def ask(self, name: str, rows: Any) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
        answer = self.agent.http.post("/v2/models/digits/infer", json={"id": name, "inputs": [tensor]})
        assert answer.status_code == 200, answer.text

    def kept(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.hub.get("samples") if one["prediction"] == name]

    def close(self) -> None:
        self.agent.close()
        self.hub.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path, make_package(tmp_path / "digits"))
    yield found
    found.close()


def test_from_an_answer_to_the_hub_through_a_kill_to_consent_taken_back(world: World) -> None:
    agent, rows = world.agent, np.random.default_rng(4).random((3, 64), np.float32)
    agent.start(ready=True)
    wait_for(lambda: agent.status()["samples"]["on"], 60, f"the channel's policy\n{agent.log}")
    world.ask("one", rows[:1])
    (kept,) = wait_for(lambda: world.kept("one"), 60, f"the sample\n{agent.log}\n{world.hub.log}")
    answer = world.hub.api.get(f"/api/v1/samples/{kept['number']}/inputs")
    (tensor,) = (Tensor.from_wire(value, name) for name, value in decode(answer.content).items())
    assert np.array_equal(tensor.row(), rows[0]) and kept["strategy"] == "random" and kept["probability"] == 1.0
    wait_for(lambda: agent.status()["samples"]["waiting"] == 0, 60, "the acknowledgement")
    # A label that comes when the hub has the sample already follows it.
    item = {"id": "one", "label": 7}
    assert agent.http.post("/edgeloop/v1/feedback", json={"items": [item]}).json()["accepted"] == 1
    wait_for(lambda: world.kept("one")[0]["label"] == 7, 60, "its label")
    assert world.kept("one")[0]["source"] == "device"
    # What waits outlives a kill.
    world.hub.stop()
    world.ask("two", rows[1:2])
    wait_for(lambda: agent.status()["samples"]["waiting"] == 1, 60, "a sample that waits")
    agent.kill()
    world.hub.start()
    agent.start(ready=True)
    wait_for(lambda: world.kept("two"), 60, f"the sample that waited\n{agent.log}")
    # Its owner has enough.
    text = agent.config.read_text()
    agent.config.write_text(text.replace("samples = true", "samples = false"))
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: not agent.status()["samples"]["on"], 60, f"the end of it\n{agent.log}")
    assert not list(agent.data.glob("samples.db*"))
    world.ask("three", rows[2:3])
    assert agent.http.post("/edgeloop/v1/flush").status_code in (200, 204)
    assert not list(agent.data.glob("samples.db*")) and world.kept("three") == []


def test_large_ones_go_over_http_and_wait_while_the_hub_has_no_room(tmp_path: Path) -> None:
    hub = ApiHub(tmp_path / "hub", samples_max_bytes=10 << 20)
    device = Device(tmp_path / "device", hub=str(hub.http.base_url))
    try:
        hub.put("channels/stable", POLICY)
        full, hub.hub.samples.store._most_bytes = hub.hub.samples.store._most_bytes, 0
        rows = np.random.default_rng(3).random((1, 50_000), np.float32)
        device.start(connected=True, **EVERYTHING)
        device.answer("large", rows)
        until(lambda: "507" in device.samples.status().trouble)
        assert device.samples.status().waiting == 1 and hub.get("samples") == []
        hub.hub.samples.store._most_bytes = full
        until(lambda: device.samples.status().waiting == 0, 60)
        (kept,) = hub.get("samples", device="dev-1")
        found = hub.hub.samples.store.files.tensors(hub.hub.samples.store.get(kept["number"]).sha256)
        assert np.array_equal(found["x"].row(), rows[0]) and device.link.published == []
        status = device.samples.status()
        assert (status.sent, status.acknowledged, status.trouble) == (1, 1, "")
    finally:
        device.stop()
        hub.close()
