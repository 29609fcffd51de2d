"""The life of a run: it is told of, cancelled, interrupted, gone on with, and not repeated; and what starts one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud_hub.errors import Conflict, NotFound
from cloud_hub.policy import ChannelPolicy
from cloud_hub.training.gate import Evidence
from cloud_hub.training.head_trainer import HeadTrainer
from cloud_hub.training.measuring import measured
from cloud_hub.training.run_records import Run
from cloud_hub.training.trainer import Cancelled, Candidate, Job, TrainingError
from edgeloop.insights import Observer, Window
from edgeloop.package import Package
from examples.digits.data import CLEAN, FIRST_SLIP
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.loop_world import CHANNEL, POLICY, Camera, World

SOON_S = 60.0


class Slow:
    """A trainer that takes as long as the test wants, and then does what ``head`` does."""

    name = "command"
    resumable = True

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.may_end = threading.Event()
        self.head: HeadTrainer | None = None

    def labels(self, channel: str, family: Sequence[str], since: float | None) -> int:
        assert self.head is not None
        return self.head.labels(channel, family, since)

    def train(self, job: Job) -> Candidate:
        assert self.head is not None
        self.jobs.append(job)
        (job.folder / f"attempt-{len(self.jobs)}").touch()
        job.say("epoch 1 of 2", 0.5)
        while not self.may_end.wait(0.01):
            if job.stopped():
                raise Cancelled("told to stop")
        return self.head.train(replace(job, folder=job.folder / "made"))


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def world(tmp_path: Path, package: Package, slow: Slow) -> Iterator[World]:
    world = World(tmp_path, trainers=[slow])
    slow.head = HeadTrainer(world.db, world.insights)
    world.channels.set_policy(CHANNEL, policy(retraining={"trigger": "manual", "trainer": "command"}))
    world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    world.add_device("camera-1")
    yield world
    slow.may_end.set()
    world.training.stop(SOON_S)
    world.close()


def policy(**changes: dict[str, object]) -> ChannelPolicy:
    plain = POLICY.model_dump()
    return ChannelPolicy.model_validate({part: values | changes.get(part, {}) for part, values in plain.items()})


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def begun(world: World, slow: Slow) -> Run:
    """A run by hand that its trainer has begun."""
    world.run(Camera(FIRST_SLIP, per_window=300), 2, labelled=True)
    run = world.training.request(CHANNEL, "new cameras")
    seen = len(slow.jobs)
    world.training.tick()
    wait_for(lambda: len(slow.jobs) > seen and bool(world.training.doing(run.id) and _line(world, run)))
    return world.training.get(run.id)


def _line(world: World, run: Run) -> str:
    doing = world.training.doing(run.id)
    return "" if doing is None else doing.line


def test_a_run_tells_how_far_it_is_and_ends_when_somebody_wants(world: World, slow: Slow) -> None:
    run = begun(world, slow)
    doing = world.training.doing(run.id)
    assert doing is not None and (run.state, doing.line, doing.share) == ("training", "epoch 1 of 2", 0.5)
    world.training.tick()
    assert len(slow.jobs) == 1, "one run of a model at a time"
    cancelled = world.training.cancel(run.id, "the wrong labels")
    assert (cancelled.state, cancelled.reason) == ("cancelled", "cancelled: the wrong labels")
    assert world.training.crew.join(SOON_S)
    assert world.training.get(run.id) == cancelled, "what the trainer says afterwards changes nothing"
    assert not slow.jobs[0].folder.exists()
    told = [line.split(" ", 1)[1] for line in world.training.lines(run.id)]
    assert told == ["queued: new cameras", "training", "epoch 1 of 2", "cancelled: the wrong labels"]
    assert world.training.lines(run.id, 1) == world.training.lines(run.id)[-1:]
    with pytest.raises(Conflict, match="cancelled already"):
        world.training.cancel(run.id)
    with pytest.raises(NotFound):
        world.training.cancel(99)

    queued = world.training.request(CHANNEL)
    world.training.cancel(queued.id)
    world.training.tick()
    assert len(slow.jobs) == 1, "it never began"


def test_a_trainer_that_does_not_listen_is_not_waited_for(world: World, slow: Slow) -> None:
    run = begun(world, slow)
    world.training.cancel(run.id)
    slow.may_end.set()  # it makes its candidate all the same, or has stopped: neither leads anywhere
    assert world.training.crew.join(SOON_S)
    assert world.training.get(run.id).state == "cancelled"
    assert world.rollouts.newest() == []


def test_an_interrupted_run_goes_on_where_its_trainer_can(world: World, slow: Slow) -> None:
    run = begun(world, slow)
    world.training.stop(SOON_S)
    assert world.training.get(run.id).state == "training", "whoever starts next decides"
    assert slow.jobs[0].folder.is_dir()
    world.clock.now += 100.0
    world.training = world.make_training()
    assert world.training.get(run.id).state == "queued"
    slow.may_end.set()
    world.train()
    ended = world.training.get(run.id)
    assert (ended.state, ended.attempts, ended.interrupted) == ("released", 2, False), ended
    first, second = slow.jobs
    assert (second.folder, second.until, second.version) == (first.folder, first.until, first.version)
    assert any("it goes on" in line for line in world.training.lines(run.id))


def test_no_run_that_has_ended_leaves_its_folder(world: World, slow: Slow) -> None:
    run = begun(world, slow)
    world.training.stop(SOON_S)
    left = world.folder / "training" / "work" / "run-00000099"  # of a hub that was killed at a run's end
    left.mkdir()
    world.training = world.make_training()
    assert slow.jobs[0].folder.is_dir() and not left.exists()
    assert world.training.cancel(run.id).state == "cancelled"
    assert not slow.jobs[0].folder.exists(), "it was to go on, and does not"


def test_an_interrupted_run_whose_channel_has_moved_on_is_failed(
    world: World, slow: Slow, package: Package, tmp_path: Path
) -> None:
    run = begun(world, slow)
    world.training.stop(SOON_S)
    world.channels.set_policy(CHANNEL, policy(retraining={"trainer": "head", "trigger": "manual"}))
    world.training = world.make_training()
    ended = world.training.get(run.id)
    assert ended.state == "failed" and ended.interrupted and not slow.jobs[0].folder.exists()


def test_what_was_refused_is_not_made_again_of_the_same_data(world: World) -> None:
    strict = {"retraining": {"trigger": "manual"}, "gate": {"validation_floor": 0.99}}
    world.channels.set_policy(CHANNEL, policy(**strict))
    world.run(Camera(FIRST_SLIP, per_window=300), 2, labelled=True)
    for _ in range(2):
        world.training.request(CHANNEL)
        world.train()
    again, first = world.training.newest()
    assert first.state == again.state == "refused" and first.data == again.data != ""
    assert "below the floor" in first.reason and first.verdict["latency_ms"] > 0
    assert f"run {first.id} was made of the same data in the same way" in again.reason and not again.verdict
    world.channels.set_policy(CHANNEL, policy(retraining={"trigger": "manual"}))
    world.training.request(CHANNEL)
    world.train()
    assert world.training.newest()[0].state == "released", "another gate may say another thing"


def test_a_head_is_judged_class_by_class_and_segment_by_segment(world: World) -> None:
    floors = {"class_floor": 0.2, "segment_floor": 0.999, "validation_class_floor": 0.0}
    world.channels.set_policy(CHANNEL, policy(retraining={"trigger": "manual"}, gate=floors))
    device, slipped, clean = world.devices_by_name["camera-1"], Camera(FIRST_SLIP, 400), Camera(CLEAN, 200)
    world.see(device, slipped.next(), labelled=True, segment="outside")
    world.see(device, clean.next(), labelled=True, segment="inside")
    world.tick()
    world.training.request(CHANNEL)
    world.train()
    run = world.training.newest()[0]
    assert run.state == "refused" and "below the floor of 0.999 for segment" in run.reason, run.reason
    segments, classes = run.verdict["segments"], run.verdict["classes"]
    assert set(segments) == {"inside", "outside"} and segments["inside"]["rows"] < segments["outside"]["rows"]
    assert all(0.5 < part["accuracy"] <= 1.0 for part in segments.values())
    assert sum(part["rows"] for part in classes.values()) == run.verdict["holdout_labels"]
    rows = sum(part["rows"] for part in segments.values())
    assert rows == run.verdict["holdout_labels"], "every label was given in a segment"
    mean = sum(part["accuracy"] * part["rows"] for part in classes.values()) / rows
    assert mean == pytest.approx(run.verdict["candidate_accuracy"], abs=0.02)


def test_what_else_starts_a_run(world: World) -> None:
    camera = Camera(FIRST_SLIP, per_window=200)
    quiet: dict[str, Any] = {"trainer": "head", "cooldown_s": 0.0, "labels_each": 400, "min_labels": 300}
    triggers = ["accuracy", "labels", "escalation", "schedule"]
    world.channels.set_policy(CHANNEL, policy(retraining={**quiet, "trigger": triggers, "min_accuracy": 0.9}))
    world.run(Camera(CLEAN, per_window=200), 1)
    told = world.training.outlook(CHANNEL).reason.split("; ")
    assert len(told) == 4 and "0 of 400 labels since the last run" in told[1], told
    assert "0.0% of 200 answers were escalated" in told[2] and "the timetable's next run is in" in told[3]

    world.channels.set_policy(CHANNEL, policy(retraining={**quiet, "trigger": "labels"}))
    world.run(camera, 2, labelled=True)
    run = world.training.newest()[0]
    assert (run.trigger, run.alarm, run.state) == ("labels", None, "released"), run
    assert run.cause == "400 labels since the last run"


def test_the_accuracy_and_the_escalations_of_late(world: World) -> None:
    tried = {"trainer": "head", "cooldown_s": 0.0, "min_labels": 100_000}
    both = {**tried, "trigger": ["accuracy", "escalation"], "min_accuracy": 0.9, "max_escalated": 0.5}
    world.channels.set_policy(CHANNEL, policy(retraining=both))
    device = world.devices_by_name["camera-1"]
    world.see(device, Camera(FIRST_SLIP, per_window=400).next(), labelled=True)
    outlook = world.training.outlook(CHANNEL)
    assert outlook.cause == "accuracy" and "400 of 100000 labels" in outlook.reason, outlook

    world.channels.set_policy(CHANNEL, policy(retraining={**both, "trigger": "escalation"}))
    assert "0.0% of 400 answers were escalated" in world.training.outlook(CHANNEL).reason
    profile = world.releases.profile(device.release or "")
    assert profile is not None
    window = Window.zero(profile.schema, device.release or "", "cpu-fp32", "CPU", world.clock() - 1.0, world.clock())
    Observer(profile).escalation(window, 300)
    world.add(device.name, window)
    assert world.training.outlook(CHANNEL).cause == "escalation"


def test_the_hub_measures_what_no_trainer_can_say_of_itself(package: Package, tmp_path: Path) -> None:
    said = Evidence(0.1, 0.2, 50, validation_accuracy=1.0, latency_ms=0.0, size_bytes=1)
    found = measured(said, package, package)
    assert found.candidate_error == 0.1 and found.holdout_labels == 50, "that is the trainer's to tell"
    assert found.validation_accuracy == found.current_validation_accuracy and 0.8 < (found.validation_accuracy or 0) < 1
    assert set(found.validation_classes) <= set(package.meta.labels)
    _, labels = package.validation() or (None, [])
    assert sum(part.rows for part in found.validation_classes.values()) == len(labels) > 0
    assert found.latency_ms and found.current_latency_ms
    assert found.size_bytes == found.current_size_bytes == package.index.total_bytes
    gone = replace(package, root=tmp_path / "gone")
    with pytest.raises(TrainingError, match="cannot be measured"):
        measured(said, package, gone)
