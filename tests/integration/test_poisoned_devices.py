"""Labels that lie, through the hub's own records: a tenth of a fleet costs next to nothing, and the run says who."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from cloud_hub.head_groups import group_of, groups
from cloud_hub.policy import RetrainingPolicy
from cloud_hub.records.tables import head_windows
from cloud_hub.training.head import heads
from cloud_hub.training.head_data import TrainingData, gather
from edgeloop.package import Package
from examples.digits.data import CLEAN, FIRST_SLIP, Slip, Split, load
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.loop_world import CHANNEL, World

EACH = 30
POLICY = RetrainingPolicy()


@pytest.fixture
def world(tmp_path: Path, package: Package) -> Iterator[World]:
    world = World(tmp_path)
    world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    for number in range(20):
        world.add_device(f"camera-{number}")
    yield world
    world.close()


def label(world: World, liars: int = 0, slip: Slip = FIRST_SLIP, seed: int = 0, each: int = EACH) -> None:
    """Every device labels digits of its own; those of the liars are others."""
    stream = slip(load().stream, seed=seed)
    rows = np.random.default_rng(seed).permutation(len(stream.y))
    for number, device in enumerate(world.devices_by_name.values()):
        own = rows[number * each : (number + 1) * each]
        truth = stream.y[own]
        world.see(device, Split(stream.x[own], 9 - truth if number < liars else truth), labelled=True)


def made_of(world: World, policy: RetrainingPolicy = POLICY) -> TrainingData:
    release = world.channels.get(CHANNEL).current
    assert release is not None
    until = world.clock() + 1.0
    return gather(world.db, world.insights, CHANNEL, [release], since=None, settled=None, until=until, policy=policy)


def accuracy(world: World, data: TrainingData, slip: Slip = FIRST_SLIP) -> float:
    """Of the head that they make, on digits that nobody labelled."""
    seen = slip(load().judge, seed=9)
    _, features = world.infer(data.releases[0], seen.x)
    ((_, weight, bias),) = heads(data.statistics.all, "lda", (0.1,))
    return float(((features @ weight.T + bias).argmax(axis=1) == seen.y).mean())


def test_two_of_twenty_devices_with_flipped_labels(world: World) -> None:
    label(world, liars=2)
    poisoned = made_of(world)
    believed = made_of(world, RetrainingPolicy(max_group_share=1.0))
    schema = world.insights.schema(poisoned.releases[0])
    told = poisoned.plain()["groups"]
    assert told["left_out"] and set(told["left_out"]) <= {group_of(f"camera-{n}", schema) for n in (0, 1)}
    assert any("are left out" in note for note in poisoned.notes)
    assert believed.statistics.labels == 20 * EACH > poisoned.statistics.labels

    # What the same fleet's honest labels would have given.
    honest = World(world.folder / "honest", world.clock)
    try:
        honest.channels.offer(CHANNEL, honest.publish(world.releases.open(poisoned.releases[0])), honest.rollouts)
        for name in world.devices_by_name:
            honest.add_device(name)
        label(honest)
        clean = made_of(honest)
        assert clean.plain()["groups"]["left_out"] == {} and clean.notes == []
        assert accuracy(world, poisoned) >= accuracy(honest, clean) - 0.02
    finally:
        honest.close()


def test_groups_add_up_to_what_the_windows_hold_and_do_not_grow_with_the_fleet(world: World) -> None:
    label(world)
    release = world.channels.get(CHANNEL).current or ""
    whole = world.insights.merged(CHANNEL, release)
    assert whole is not None
    statistics = made_of(world, RetrainingPolicy(max_group_share=1.0)).statistics
    assert np.array_equal(statistics.fit.count, whole.arrays["head_fit_count"])
    np.testing.assert_allclose(statistics.holdout.sums, whole.arrays["head_holdout_sum"], rtol=1e-9)
    for number in range(20, 90):
        world.add_device(f"camera-{number}")
    label(world, each=2, seed=1)
    with world.db.read() as connection:
        query = select(func.count()).select_from(head_windows).group_by(head_windows.c.interval_start)
        rows = connection.execute(query).scalars().all()
    assert 40 < max(rows) <= len(groups(world.insights.schema(release))) == 64


def test_old_labels_fade_by_the_policys_half_life(world: World) -> None:
    label(world, slip=CLEAN)
    world.clock.now += 3600.0
    label(world, seed=1)
    everything, faded = made_of(world), made_of(world, RetrainingPolicy(half_life_s=600.0))
    assert everything.statistics.labels == faded.statistics.labels == 40 * EACH
    assert faded.statistics.all.mass == pytest.approx(20 * EACH * (1 + 2**-6))
    assert faded.plain()["half_life_s"] == 600.0 and faded.plain()["worth"] < everything.plain()["worth"]
    assert accuracy(world, faded) > accuracy(world, everything), "the new world counts more"
    assert accuracy(world, faded, CLEAN) < accuracy(world, everything, CLEAN), "and the old one less"
