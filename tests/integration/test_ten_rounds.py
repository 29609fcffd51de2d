"""Ten rounds of changing drift that nobody attends to: alarm, labels, run, gate, rollout, and the next world.

Beside the accuracy after each recovery stands the one on the digits of the first day, so that forgetting is seen. The
long form, with real processes, is ``tests/system/test_ten_rounds_of_processes.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_hub.policy import ChannelPolicy
from edgeloop.package import Package
from examples.digits.data import CLEAN, Slip, load
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.loop_world import CHANNEL, POLICY, Camera, World
from tests.integration.ten_worlds import WORLDS, Round, check, table

#: Seconds of the world's clock that a round may take. Nothing is timed by it: it bounds a loop that does not end.
MOST_SECONDS = 60


@pytest.fixture
def world(tmp_path: Path, package: Package) -> Iterator[World]:
    world = World(tmp_path)
    plain = POLICY.model_dump()
    plain["drift"] |= {"min_predictions": 400}
    plain["retraining"] |= {"min_labels": 600, "cooldown_s": 0.0}
    plain["rollout"] |= {"steps": [{"share": 1.0}], "bake_s": 0.0}  # how releases spread has tests of its own
    world.channels.set_policy(CHANNEL, ChannelPolicy.model_validate(plain))
    world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    for number in range(3):
        world.add_device(f"camera-{number}")
    yield world
    world.close()


def current(world: World) -> str:
    digest = world.channels.get(CHANNEL).current
    assert digest is not None
    return digest


def accuracy(world: World, slip: Slip) -> float:
    """Of what the channel's devices run now, on digits that nobody has ever labelled."""
    seen = slip(load().judge, seed=1)
    probabilities, _ = world.infer(current(world), seen.x)
    return float((probabilities.argmax(axis=1) == seen.y).mean())


def recover(world: World, camera: Camera) -> None:
    """A new world: people label once there is an alarm, and everything else happens by itself."""
    before = current(world)
    for _ in range(MOST_SECONDS):
        alarmed = bool(world.alarms.open_on(CHANNEL, current(world)))
        world.run(camera, 1, labelled=alarmed and world.channels.get(CHANNEL).rollout is None)
        if current(world) != before and world.rollouts.active(CHANNEL) is None:
            return
    raise AssertionError(f"no recovery: {world.training.outlook(CHANNEL)}, {world.training.newest(CHANNEL, 3)}")


def test_ten_rounds_of_drift(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.run(Camera(CLEAN, per_window=140), 3)
    first_day = accuracy(world, CLEAN)
    rounds = []
    for turn, slip in enumerate(WORLDS):
        camera = Camera(slip, per_window=140, seed=turn)
        drifted = accuracy(world, slip)
        recover(world, camera)
        rounds.append(Round(slip.name, drifted, accuracy(world, slip), accuracy(world, CLEAN)))
    with capsys.disabled():
        print(f"\nten rounds of drift; on the first day {first_day:.3f}\n{table(rounds)}")
    check(rounds)
    runs = world.training.newest(CHANNEL)
    assert [run.state for run in runs] == ["released"] * len(WORLDS), runs
    assert all(run.trigger == "drift" and run.attempts == 1 for run in runs)
