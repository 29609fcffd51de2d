"""A target of escalation, from the policy to the device: a real hub, its teacher, its broker, and a real agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.package import Package
from tests.doubles.packages import WIDTH, duller, make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.brokers import find_mosquitto
from tests.integration.hub_process import HubProcess, wait_for

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="needs Mosquitto: apt-get install mosquitto")

#: Without a threshold of its own this channel would send three times as much.
ESCALATION = {"mode": "async", "signals": ["confidence"], "threshold": 0.3, "floor": 0.05, "max_share": 0.6}
ROLLOUT = {"steps": [{"share": 1.0}], "bake_s": 0.0}
ROWS, BATCH = 600, 60
#: Only a machine on which much else runs needs more than a few seconds.
PATIENCE_S = 240


class World:
    """A hub with a teacher that is right, and an agent whose owner lets inputs travel."""

    def __init__(self, folder: Path) -> None:
        self.base = make_package(folder / "base")
        self.hub = HubProcess(folder / "hub").start()
        teacher = self.publish(make_package(folder / "right", name="right"))
        self.put("teachers/right", {"kind": "package", "release": teacher})
        self.agent = AgentProcess(
            folder / "agent",
            insecure=True,
            hub=str(self.hub.api.base_url).rstrip("/"),
            broker_port=self.hub.broker_port,
            escalation_travels=["input"],
        )

    def publish(self, package: Package, channel: str = "") -> str:
        files = {one.sha256: (package.root / one.path).read_bytes() for one in package.index.entries}
        digest = self.hub.publish(package.index.to_bytes(), files)
        if channel:
            self.hub.api.post(f"/api/v1/channels/{channel}/releases", json={"digest": digest}).raise_for_status()
        return digest

    def put(self, path: str, body: Any) -> None:
        answer = self.hub.api.put(f"/api/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text

    def wants(self, **target: float) -> None:
        """The channel's owner wants this, of a teacher that is right."""
        escalation = {**ESCALATION, "target": target}
        self.put(
            "channels/stable",
            {"policy": {"escalation": escalation, "teaching": {"teachers": ["right"]}, "rollout": ROLLOUT}},
        )

    def fit(self, release: str) -> dict[str, Any]:
        """What the hub has fitted to a release, once it has."""

        def found() -> dict[str, Any] | None:
            fits = self.hub.get("thresholds", channel="stable")
            return next((one for one in fits if one["release"] == release), None)

        return dict(wait_for(found, PATIENCE_S, lambda: f"the threshold\n{self.hub.log}"))

    def told(self, release: str) -> float | None:
        """The threshold that the agent was told for a release."""
        found = self.agent.status()["escalation"]["policy"]["thresholds"].get(release)
        return None if found is None else float(found)

    def ask(self, identity: str, rows: Any) -> None:
        """One inference."""
        tensor = {"name": "x", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
        answer = self.agent.http.post("/v2/models/digits/infer", json={"id": identity, "inputs": [tensor]})
        assert answer.status_code == 200, answer.text

    def stream(self, name: str) -> float:
        """Rows like those of the validation set; the share that was escalated."""

        def totals() -> dict[str, Any]:
            return dict(self.agent.status()["escalation"])

        rows, before = np.random.default_rng(len(name)).random((ROWS, WIDTH), np.float32), totals()["sent"]
        for start in range(0, ROWS, BATCH):
            self.ask(f"{name}-{start}", rows[start : start + BATCH])
            # The office lets no device have more than a few dozen under way.
            wait_for(
                lambda: (now := totals())["answered"] >= now["sent"],
                PATIENCE_S,
                lambda: f"answers\n{self.agent.log}",
            )
        return (totals()["sent"] - before) / ROWS

    def close(self) -> None:
        self.agent.close()
        self.hub.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_each_release_has_its_threshold_and_the_share_stays_at_its_target(world: World, tmp_path: Path) -> None:
    world.wants(share=0.2, refit_s=1e6)
    dull = world.publish(duller(world.base, tmp_path / "dull", 0.5), "stable")
    fit = world.fit(dull)
    assert fit["source"] == "validation" and fit["threshold"] > 0.5 and fit["teacher_accuracy"] == 1.0
    world.agent.start(ready=True)
    wait_for(
        lambda: world.told(dull) == fit["threshold"],
        PATIENCE_S,
        lambda: f"the threshold on the device\n{world.agent.log}",
    )
    assert world.agent.status()["escalation"]["policy"]["threshold"] == fit["threshold"]
    assert world.stream("dull") == pytest.approx(0.2, abs=0.05)

    # What the teacher has answered, weighted by the draw, says the same, and devices are not told anything new.
    world.wants(share=0.2, refit_s=1.0)
    wait_for(
        lambda: world.fit(dull)["source"] == "answers",
        PATIENCE_S,
        lambda: f"a look at the answers\n{world.hub.log}",
    )
    again = world.fit(dull)
    assert again["threshold"] == fit["threshold"] and again["effective"] >= 50, again
    assert again["share"] == pytest.approx(0.2, abs=0.06)

    # A better head: fitted before the device has it, told together with it.
    world.wants(share=0.2, refit_s=1e6)
    better = world.publish(duller(world.base, tmp_path / "better", 0.2), "stable")
    candidate = world.fit(better)
    assert candidate["threshold"] != fit["threshold"]

    def runs() -> bool:
        world.ask("", np.zeros((1, WIDTH), np.float32))  # probation wants to see it answer
        status = world.agent.status()
        assert status["update"]["state"] != "rolled_back", status["update"]["reason"]
        return bool(status["release"] == better and world.told(better) is not None)

    wait_for(runs, PATIENCE_S, lambda: f"the better head\n{world.agent.log}\n{world.hub.log}")
    assert world.told(better) == candidate["threshold"]
    assert world.stream("better one") == pytest.approx(0.2, abs=0.05)
