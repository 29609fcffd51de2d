"""A release whose golden outputs are wrong reaches the fleet: refused, with the reason to be read in the hub's API."""

from __future__ import annotations

from pathlib import Path

from examples.digits.data import load
from examples.digits.fleet import CHANNEL, POLICY, Fleet
from examples.digits.traffic import Camera
from tests.doubles.packages import make_package


def test_wrong_golden_outputs_are_refused_while_the_old_release_answers(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet", devices=2)
    good = make_package(tmp_path / "good", version="1", seed=0)
    wrong = make_package(tmp_path / "wrong", version="2", seed=1, wrong_golden=True)
    cameras = []
    try:
        people = fleet.people
        people.make_keys()
        fleet.start_hub()
        people.sign_the_fleet()
        fleet.api.put(f"channels/{CHANNEL}", {"policy": POLICY})
        people.publish(good.root, CHANNEL)
        fleet.enrol_agents()
        fleet.start_agents()
        fleet.wait("the good release on every device", lambda: fleet.on_release(good.digest, 2))
        stream = load().stream
        cameras = [Camera(agent.device, agent.url, stream, per_second=50, seed=1) for agent in fleet.agents]
        for camera in cameras:
            camera.start()

        people.publish(wrong.root, CHANNEL)
        refused = fleet.wait("a device to refuse it", lambda: refusals(fleet, wrong.digest))
        assert "golden" in refused[0]["update"]["reason"]
        assert refused[0]["release"] == good.digest, "the old release is the one in use"
        rollout = fleet.wait("the rollout to be aborted", lambda: ended(fleet))
        assert rollout["state"] == "aborted"
        assert rollout["reason"]
        assert fleet.api.get(f"channels/{CHANNEL}")["current"]["digest"] == good.digest

        for camera in cameras:
            camera.stop()
        assert all(camera.tally.answered > 0 and camera.tally.failed == 0 for camera in cameras)
    finally:
        for camera in cameras:
            camera.stop()
        fleet.stop()


def refusals(fleet: Fleet, digest: str) -> list[dict[str, dict[str, str]]]:
    devices = [fleet.api.get(f"devices/{agent.device}") for agent in fleet.agents]
    return [
        device
        for device in devices
        if (device["update"] or {}).get("state") == "rolled_back" and device["update"]["release"] == digest
    ]


def ended(fleet: Fleet) -> dict[str, str] | None:
    rollouts = fleet.api.get("rollouts")
    return next((rollout for rollout in rollouts if rollout["state"] != "running"), None)
