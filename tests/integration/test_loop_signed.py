"""The loop in a fleet with signatures: what the hub retrains is vouched for by its own role, under its base."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from securesystemslib.signer import Key

from cloud_hub.policy import ChannelPolicy
from cloud_hub.training.gate import Evidence
from cloud_hub.training.trainer import Candidate, Job
from edgeloop.package import Package
from edgeloop.provenance import parse, verify
from edgeloop.trust import checking, repository
from edgeloop.trust.names import RETRAINED, ROOT, TARGETS, parse_release, release_role
from examples.digits.data import CLEAN, FIRST_SLIP, SECOND_SLIP
from tests.doubles.packages import new_head
from tests.doubles.people import People
from tests.doubles.verifier import Verifier
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.loop_world import CHANNEL, POLICY, Camera, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "hub", signed=True)
    yield world
    world.close()


@pytest.fixture
def people(world: World, package: Package) -> People:
    """They publish the package, signed, on the channel."""
    hub = {"fleet": "test", "versions": {}, "named": [], "online": world.trust.view().online}
    people = People(hub, world.clock.now, package.name)
    for role in (ROOT, TARGETS):
        world.trust.accept(role, people.file(role))
    world.trust.accept(*people.release(package))
    world.channels.set_policy(CHANNEL, POLICY)
    world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    world.add_device("camera-1")
    return people


@pytest.fixture
def device(people: People, tmp_path: Path) -> Verifier:
    return Verifier(tmp_path / "device", people.fleet.pinned)


def until_retrained(world: World, camera: Camera, seconds: int = 40) -> str:
    """Labelled traffic until a retrained release is current; returns its path in the signed metadata."""
    before = world.channels.get(CHANNEL).current
    for _ in range(seconds):
        world.run(camera, 1, labelled=True)
        if world.channels.get(CHANNEL).current != before:
            return world.channels.document(CHANNEL).current.target
    raise AssertionError((world.training.newest(), world.rollouts.newest()))


def trainers(world: World) -> list[Key]:
    """The keys that people have named for what the hub retrains."""
    targets = checking.read_targets(world.trust.newest(TARGETS))
    return repository.keys_of(targets.signed, RETRAINED)[0]


def test_retrained_releases_follow_their_base_and_stay_below_the_next_of_the_publisher(
    world: World, people: People, device: Verifier, package: Package
) -> None:
    world.run(Camera(CLEAN), 5)
    paths = []
    for slip in (FIRST_SLIP, SECOND_SLIP):
        paths.append(parse_release(until_retrained(world, Camera(slip, seed=len(paths)))))
        document = device.open(CHANNEL, world.broker.last[world.topics.channel(CHANNEL)])
        assert document.current.target == str(paths[-1])
    assert all(str(path.base) == f"releases/{package.name}/1" and path.revision for path in paths)
    current = world.channels.get(CHANNEL).current or ""
    payload, _ = verify(world.attestations.get(current, "provenance"), trainers(world))
    assert parse(payload).digest == current
    assert paths[0].order < paths[1].order < parse_release(f"releases/{package.name}/2").order
    # What may still be needed is not to be forgotten: the publisher is told the base, too.
    assert {str(paths[0]), str(paths[1]), f"releases/{package.name}/1"} <= set(world.trust.view().in_use)


def test_without_a_signed_base_nothing_is_released(world: World, people: People, package: Package) -> None:
    world.run(Camera(CLEAN), 5)
    # The publisher's key is revoked, and nobody has signed for the model again.
    targets = people.fleet.draft(TARGETS)
    role = release_role(package.name)
    repository.set_keys(targets.signed, role, [people.fleet.root_key.public_key], 1)
    world.trust.accept(TARGETS, people.sign(TARGETS, targets))
    before = world.channels.get(CHANNEL).current
    camera = Camera(FIRST_SLIP)
    for _ in range(40):
        world.run(camera, 1, labelled=True)
        if runs := world.training.newest():
            break
    assert runs[0].state == "failed" and "no publisher has signed" in runs[0].reason
    assert (world.channels.get(CHANNEL).current, world.rollouts.active(CHANNEL)) == (before, None)


class AnotherNetwork:
    """A trainer of whole networks."""

    name, resumable = "command", False

    def labels(self, channel: str, family: Sequence[str], since: float | None) -> int:
        return 100

    def train(self, job: Job) -> Candidate:
        made = new_head(job.base, job.folder / "package", "2")
        return Candidate(made, Evidence(0.1, 0.2, 100), {"trainer": self.name}, ())


def test_more_than_a_new_head_waits_for_a_publishers_signature(world: World, people: People, package: Package) -> None:
    world.trainers = (AnotherNetwork(),)
    world.training = world.make_training()
    policy = {"trainer": "command", "program": "any"}
    gate = {"validation_floor": 0.0, "max_latency_ratio": None}
    world.channels.set_policy(CHANNEL, ChannelPolicy.model_validate({"retraining": policy, "gate": gate}))
    run = world.training.request(CHANNEL)
    for _ in range(600):
        world.tick(0.0)
        if world.training.get(run.id).ended is not None:
            break
        time.sleep(0.1)
    found = world.training.get(run.id)
    assert (found.state, found.rollout) == ("released", None), found
    assert found.release is not None and f"a publisher has to sign {found.release}" in found.reason
    assert world.channels.get(CHANNEL).current == package.digest
