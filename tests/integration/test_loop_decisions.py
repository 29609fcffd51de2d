"""The loop as the hub decides it, twice over: drift, alarm, training, gate, release, rollout."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_hub.errors import BadRequest, Conflict
from cloud_hub.policy import ChannelPolicy
from cloud_hub.training.head_trainer import make
from cloud_hub.training.trainer import Cancelled, Candidate
from edgeloop.package import Package
from edgeloop.provenance import parse, read
from examples.digits.data import CLEAN, FIRST_SLIP, SECOND_SLIP, Slip, load
from tests.doubles.packages import make_package
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.loop_world import CHANNEL, POLICY, Camera, World


@pytest.fixture
def world(tmp_path: Path, package: Package) -> Iterator[World]:
    world = World(tmp_path)
    world.channels.set_policy(CHANNEL, POLICY)
    world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    for number in range(3):
        world.add_device(f"camera-{number}")
    yield world
    world.close()


def policy(**changes: dict[str, object]) -> ChannelPolicy:
    plain = POLICY.model_dump()
    return ChannelPolicy.model_validate({part: values | changes.get(part, {}) for part, values in plain.items()})


def current(world: World) -> str:
    digest = world.channels.get(CHANNEL).current
    assert digest is not None
    return digest


def accuracy(world: World, slip: Slip) -> float:
    seen = slip(load().judge, seed=1)
    probabilities, _ = world.infer(current(world), seen.x)
    return float((probabilities.argmax(axis=1) == seen.y).mean())


def until_alarm(world: World, camera: Camera, limit: int = 20) -> int:
    """Unlabelled traffic until an alarm is open on the current release; returns its id."""
    for _ in range(limit):
        if found := world.alarms.open_on(CHANNEL, current(world)):
            return found[0].id
        world.run(camera, 1)
    raise AssertionError("no alarm")


def until_ended(world: World, camera: Camera, limit: int = 40) -> None:
    """Traffic until no rollout and no run is under way."""
    for _ in range(limit):
        world.run(camera, 1)
        if world.rollouts.active(CHANNEL) is None:
            return
    raise AssertionError(world.rollouts.newest()[0])


def test_the_loop_closes_again_and_again(world: World) -> None:
    first = current(world)
    world.run(Camera(CLEAN), 15)
    assert world.alarms.newest() == [], "no false alarm on clean digits"
    assert accuracy(world, CLEAN) > 0.9

    parent = first
    for turn, slip in enumerate((FIRST_SLIP, SECOND_SLIP, FIRST_SLIP), start=1):
        camera = Camera(slip, seed=turn)
        alarm = until_alarm(world, camera)
        assert len(world.alarms.newest()) == turn
        assert world.training.newest() == [] or world.training.newest()[0].alarm != alarm
        drifted = accuracy(world, slip)
        world.run(camera, 4, labelled=True)
        run = world.training.newest()[0]
        assert (run.state, run.alarm, run.parent) == ("released", alarm, parent), run
        until_ended(world, camera)
        assert world.rollouts.get(run.rollout or "").state == "finished"
        assert current(world) == run.release != parent
        assert all(device.release == run.release for device in world.devices_by_name.values())
        assert accuracy(world, slip) > drifted + 0.1
        world.run(camera, 12)  # the new world is normal now: quiet
        assert world.alarms.open_on(CHANNEL) == []
        closed = world.alarms.get(alarm)
        assert closed.state == "closed" and "left this release" in closed.closed_reason
        parent = current(world)

    versions = [release.version for release in world.releases.lineage(parent)]
    assert versions == ["1.0.0+r3", "1.0.0+r2", "1.0.0+r1", "1.0.0"]
    assert len(world.training.newest()) == 3, "one run a drift"


def test_a_retrained_release_costs_little_and_says_where_it_comes_from(world: World) -> None:
    first = current(world)
    world.run(Camera(CLEAN), 5)
    camera = Camera(FIRST_SLIP)
    alarm = until_alarm(world, camera)
    world.run(camera, 4, labelled=True)
    run = world.training.newest()[0]
    assert run.release is not None
    before, after = world.releases.open(first), world.releases.open(run.release)
    known = {entry.sha256 for entry in before.index.entries}
    new = [entry for entry in after.index.entries if entry.sha256 not in known]
    update = sum(entry.size for entry in new) + len(after.index.to_bytes())
    assert update < 0.12 * sum(entry.size for entry in before.index.entries)

    lineage = after.meta.lineage
    assert lineage["parent"] == first and lineage["alarm"] == alarm and lineage["run"] == run.id
    assert lineage["trainer"]["name"] == "head" and lineage["trainer"]["method"] in ("ridge", "lda")
    data = lineage["data"]
    assert data["labels"] == sum(data["labels_per_class"]) >= 400 and data["holdout"] > 50
    assert data["since"] == world.alarms.get(alarm).since and data["releases"] == [first]

    golden, session = after.golden(), world.session(run.release)
    names = list(golden.outputs["fp32"])
    assert {p: set(tensors) for p, tensors in golden.outputs.items()} == {
        p: set(tensors) for p, tensors in before.golden().outputs.items()
    }
    for name, found in zip(names, session.run(dict(golden.inputs), names), strict=True):
        np.testing.assert_allclose(found, golden.outputs["fp32"][name], rtol=1e-3, atol=1e-4)

    profile, old = world.releases.profile(run.release), world.releases.profile(first)
    assert profile is not None and old is not None
    assert not profile.reference.arrays["confidence"].any() and not profile.reference.arrays["classes"].any()
    assert profile.reference.arrays["inputs"].any() and profile.reference.arrays["projections"].any()
    assert np.array_equal(profile.edges.of("inputs"), old.edges.of("inputs"))
    assert profile.calibration is not None and profile.calibration.rows <= data["holdout"]
    assert profile.calibration.familiar is not None
    assert profile.calibration.familiar.width == profile.schema.projections
    for variant, metrics in after.meta.metrics.items():
        assert metrics["accuracy"] != before.meta.metrics[variant]["accuracy"]
    check_provenance(world, run.release, first)
    verdict = run.verdict
    assert verdict["passed"] and verdict["candidate_error"] < verdict["current_error"]
    assert "held-out error" in verdict["summary"] and "validation accuracy" in verdict["summary"]


def check_provenance(world: World, release: str, base: str) -> None:
    """The hub says of its own release: made from this base and these sums, by these libraries."""
    said = parse(read(world.attestations.get(release, "provenance")).payload)
    assert (said.digest, said.builder) == (release, "cloud-hub")
    assert base.removeprefix("sha256:") in said.materials.values() and len(said.materials) == 2
    bill = json.loads(world.attestations.get(release, "sbom"))
    model = bill["metadata"]["component"]
    assert model["bom-ref"] == release and [a["bom-ref"] for a in model["pedigree"]["ancestors"]] == [base]
    (sums,) = [part for part in bill["components"] if part["type"] == "data"]
    assert sums["hashes"][0]["content"] in said.materials.values()


def test_a_fleet_that_must_not_forget_refuses_and_keeps_what_it_refused(world: World) -> None:
    world.channels.set_policy(CHANNEL, policy(gate={"validation_floor": 0.99}))
    first = current(world)
    camera = Camera(FIRST_SLIP)
    alarm = until_alarm(world, camera)
    world.run(camera, 3, labelled=True)
    run = world.training.newest()[0]
    assert run.state == "refused" and "below the floor of 0.990" in run.reason
    assert run.verdict["validation_accuracy"] < 0.99 and run.verdict["candidate_error"] is not None
    assert run.release is None and current(world) == first and world.rollouts.newest() == []
    assert list((world.folder / "training").glob("run-*.safetensors"))
    assert list((world.folder / "training" / "work").iterdir()) == []

    labels = run.labels
    world.run(camera, 8)  # cooldown over, no new label: the same verdict is not asked for again
    assert len(world.training.newest()) == 1
    assert f"of {int(np.ceil(labels * 1.25))} labels" in world.training.outlook(CHANNEL).reason
    world.run(camera, 4, labelled=True)
    assert len(world.training.newest()) == 2 and world.training.newest()[0].alarm == alarm


def test_a_candidate_that_devices_refuse_goes_back(world: World) -> None:
    first = current(world)
    camera = Camera(FIRST_SLIP)
    until_alarm(world, camera)
    for device in world.devices_by_name.values():
        device.refuses = lambda digest: "" if digest == first else "golden cases: top-1 agreement 0.2"
    world.run(camera, 4, labelled=True)
    until_ended(world, camera)
    rollout = world.rollouts.newest()[0]
    assert rollout.state == "aborted" and "1 of 1 devices went back: golden cases" in rollout.reason
    assert [device.release for device in world.devices_by_name.values()] == [first] * 3
    assert sum(bool(device.tried) for device in world.devices_by_name.values()) == 1, "one canary, no other"
    assert current(world) == first and world.channels.get(CHANNEL).rollout is None
    assert [entry.decision for entry in world.rollouts.history(rollout.id)] == ["start", "widen", "abort"]
    assert world.alarms.open_on(CHANNEL, first), "the drift is still there"


def test_a_hub_that_ends_in_a_run_fails_it_and_trains_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(FIRST_SLIP)
    until_alarm(world, camera)
    begun, ends = threading.Event(), threading.Event()

    def interrupted(*_: object, **__: object) -> None:
        begun.set()
        assert ends.wait(60.0)
        raise Cancelled("the hub stops")

    with monkeypatch.context() as patch:
        patch.setattr("cloud_hub.training.head_trainer.make", interrupted)
        patch.setattr(world, "train", world.training.tick)
        world.run(camera, 4, labelled=True)
        assert begun.wait(60.0)
        before = world.training
        assert before.newest()[0].state == "training"
        before.stop(0.0)
        ends.set()
        assert before.crew.join(60.0)
    assert before.newest()[0].state == "training", "whoever starts next decides"
    before.tick()
    assert before.doing(before.newest()[0].id) is None, "a hub that stops begins nothing"
    world.training = world.make_training()
    run = world.training.newest()[0]
    assert run.state == "failed" and run.interrupted and "the hub was stopped" in run.reason
    world.tick()  # no cooldown for what was not the run's fault
    assert world.training.newest()[0].state == "released"


def test_a_restarted_hub_goes_on_with_rollout_streak_and_alarm(world: World) -> None:
    camera = Camera(FIRST_SLIP)
    alarm = until_alarm(world, camera)
    world.run(camera, 3, labelled=True)
    rollout = world.rollouts.active(CHANNEL)
    assert rollout is not None
    world.close()
    again = World(world.folder, world.clock, list(world.devices_by_name.values()))
    try:
        assert again.alarms.get(alarm).state == "open"
        assert again.rollouts.active(CHANNEL) == rollout
        again.channels.publish_all()
        until_ended(again, camera)
        assert again.rollouts.get(rollout.id).state == "finished"
    finally:
        again.close()
        world.db = again.db  # the fixture closes it once more, which is harmless


def test_by_hand(world: World) -> None:
    world.channels.set_policy(CHANNEL, policy(retraining={"trigger": "manual"}))
    with pytest.raises(BadRequest, match="no labels have arrived"):
        world.training.request(CHANNEL)
    camera = Camera(FIRST_SLIP)
    world.run(camera, 4, labelled=True)
    assert world.training.newest() == []
    run = world.training.request(CHANNEL, "new cameras")
    assert run.state == "queued" and run.cause == "new cameras"
    with pytest.raises(Conflict, match="a run is under way"):
        world.training.request(CHANNEL)
    world.tick()
    assert world.training.get(run.id).state == "released"
    with pytest.raises(Conflict, match="rollout"):
        world.training.request(CHANNEL)


def test_too_few_labels_of_a_class_is_a_reason_not_a_crash(world: World) -> None:
    camera = Camera(FIRST_SLIP, per_window=4)
    world.run(camera, 1, labelled=True)
    run = world.training.request(CHANNEL)
    world.tick()
    run = world.training.get(run.id)
    assert run.state == "failed" and "label more inputs" in run.reason


def test_a_channel_that_moves_on_during_a_run_keeps_what_it_was_given(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.channels.set_policy(CHANNEL, policy(retraining={"trigger": "manual"}))
    world.run(Camera(FIRST_SLIP), 4, labelled=True)
    other = world.publish(make_package(tmp_path / "other", version="9"))

    def slow(*arguments: Any, **settings: Any) -> Candidate:
        world.channels.set_current(CHANNEL, other)
        return make(*arguments, **settings)

    monkeypatch.setattr("cloud_hub.training.head_trainer.make", slow)
    run = world.training.request(CHANNEL)
    world.train()
    run = world.training.get(run.id)
    assert (run.state, run.rollout) == ("failed", None) and "another release during the run" in run.reason
    assert current(world) == other and world.rollouts.newest() == []
    assert {release.digest for release in world.releases.all()} == {run.parent, other}, "nobody asked for a third one"


def test_a_fault_of_the_trainer_is_the_runs_reason(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("cloud_hub.training.head_trainer.make", broken)
    world.run(Camera(FIRST_SLIP), 2, labelled=True)
    run = world.training.request(CHANNEL)
    world.train()
    assert world.training.get(run.id).reason == "RuntimeError: out of memory"


def test_all_statistics_outlive_a_new_head(world: World) -> None:
    """A fleet that sees both worlds trains on both: labels of the parent and of its child are added."""
    world.channels.set_policy(CHANNEL, policy(retraining={"statistics": "all"}))
    first, camera = current(world), Camera(FIRST_SLIP)
    world.run(Camera(CLEAN), 3, labelled=True)
    until_alarm(world, camera)
    world.run(camera, 4, labelled=True)
    until_ended(world, camera)
    second = current(world)
    run = world.training.newest()[0]
    assert run.release == second and run.candidate["data"]["since"] is None
    world.run(camera, 2, labelled=True)
    given = world.insights.totals(CHANNEL)["feedback"]
    again = world.training.request(CHANNEL)
    world.tick()
    data = world.training.get(again.id).candidate["data"]
    assert set(data["releases"]) == {first, second} and data["labels"] == given
    assert accuracy(world, CLEAN) > 0.8, "the old world was not forgotten"
