"""Three acts: the hub's teacher helps, the world moves, and the edge learns of the teacher until it seldom asks."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cloud_hub.training.head import fit_head
from cloud_hub.training.head_statistics import HeadStatistics, Share
from edgeloop.runtime import Model
from examples.cascade.models import SLIPPED, train_edge, train_teacher, write_source
from examples.cascade.summary import CascadeFigures
from examples.cascade.watched import Answered, WatchedCamera, between, images_of
from examples.digits.data import Images, Labels, Split
from examples.digits.fleet import CHANNEL, POLICY, Fleet
from examples.digits.story import Story

#: The teacher's package is published as well, but no device follows its channel.
TEACHERS, TEACHER = "teachers", "large"
#: Teacher's answers that the new head is made of.
LABELS = 450
#: Answers that a figure is taken over, and those before it: what a device learns of a new release takes some.
WATCHED, SETTLING = 900, 300
#: Draws of true labels that the gain from the teacher's is compared with, and views of the digits that judge both.
DRAWS, VIEWS = 5, 3
#: Answers over which the peak of the share is taken.
PEAK_ROWS = 300
CASCADE: dict[str, Any] = {
    "escalation": {"mode": "wait", "max_share": 0.4, "deadline_ms": 1000},
    "teaching": {"teachers": [TEACHER]},
}


class CascadeStory(Story):
    """One run of the cascade below ``folder``."""

    camera = WatchedCamera

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.fleet = Fleet(folder, more='escalation_travels = ["input"]\n')
        self.figures: CascadeFigures = CascadeFigures()
        self._teacher = self._first = Path()
        self._teacher_model: Any = None

    def tell(self) -> CascadeFigures:
        """Run all acts; returns what was measured.

        Raises:
            ProcessFailed: a program ended, or something that must happen did not happen in time.
        """
        start = time.monotonic()
        try:
            with self.view:
                self.export_and_deploy()
                self.act_one_the_teacher_helps()
                answers = self.act_two_the_world_moves()
                self.act_three_it_seldom_asks()
                self.count_up(answers)
        finally:
            for camera in self.cameras:
                camera.stop()
            self.figures.exit_statuses = self.fleet.stop()
        self.figures.seconds = time.monotonic() - start
        return self.figures

    # ── before the curtain ────────────────────────────────────────────────────────────────────

    def build(self) -> tuple[Path, str]:
        """Both models: the small one for devices, the large one for the hub."""
        edge = train_edge(self.digits.train, seed=7)
        model, data = write_source(edge, "small", self.digits, self.folder)
        with ThreadPoolExecutor(1) as meanwhile:
            small = meanwhile.submit(self.export, model, data, "1", "fp32")
            self._teacher_model = train_teacher(self.digits.train, seed=0)
            large, data = write_source(self._teacher_model, TEACHER, self.digits, self.folder)
            self._teacher, _ = self.export(large, data, TEACHER, "fp32")
            self._first, digest = small.result()
        return self._first, digest

    def open_the_channel(self) -> None:
        """The teacher is hired, and the channel told to ask it."""
        fleet, policy = self.fleet, copy.deepcopy(POLICY) | CASCADE
        policy["retraining"]["min_labels"] = LABELS
        published = fleet.people.publish(self._teacher, TEACHERS)
        fleet.api.put(f"teachers/{TEACHER}", {"kind": "package", "release": published["digest"]})
        fleet.api.put(f"channels/{CHANNEL}", {"policy": policy})
        self.view.say(f"the hub has a teacher, and devices of {CHANNEL} may ask it for 40 % of their answers")

    # ── the acts ──────────────────────────────────────────────────────────────────────────────

    def act_one_the_teacher_helps(self) -> None:
        """A small model in its own world: it asks seldom, and it helps."""
        self.view.act("Act 1: clean digits, a small model on the devices, a large one in the hub")
        answers = self._watch()
        self.figures.shares["clean"] = _share(answers)
        self._compare("clean", answers, self._first)
        x, y = images_of(answers)
        self.figures.accuracy["clean_teacher"] = float((self._teacher_model.predict(x) == y).mean())

    def act_two_the_world_moves(self) -> list[Answered]:
        """More inputs are hard, up to the budget; the teacher's answers become a new head. Returns the answers."""
        self.view.act("Act 2: the camera slips (25°, 60 % of the light); nobody labels anything")
        fleet, say, before, began = self.fleet, self.view.say, self._current(), time.monotonic()
        for camera in self.cameras:
            camera.slip = SLIPPED
        alarm = fleet.wait("a drift alarm", self._alarms, 240)[0]
        say(f"DRIFT: {alarm['summary']}")
        run = fleet.wait("a new head of the teacher's answers", lambda: self._released(before), 240)
        answers = between(self._watched, began + 0.1, time.monotonic())
        shares = [_share(answers[at : at + PEAK_ROWS]) for at in range(0, max(len(answers) - PEAK_ROWS, 1), 50)]
        self.figures.shares["peak"] = max(shares)
        self._compare("slipped", answers, self._first)
        say(f"retrained: {run['verdict']['summary']}")
        everyone = len(fleet.agents)
        fleet.wait("the fleet to follow", lambda: fleet.on_release(run["release"], everyone), 240)
        say("every device runs the new head")
        return answers

    def act_three_it_seldom_asks(self) -> None:
        """The same slipped world, with the new head."""
        self.view.act("Act 3: the world is as it was, but the edge has learned")
        answers = self._watch()
        self.figures.shares["learned"] = _share(answers)
        self.figures.lineage = self.fleet.people.lineage(self._current())
        self._compare("learned", answers, self._installed(self._current()))

    def count_up(self, answers: list[Answered]) -> None:
        """What the edge has gained, of what true labels would have gained it; and the books."""
        self.view.act("The books")
        for camera in self.cameras:
            camera.stop()
        self.fleet.drain()
        figures, fleet = self.figures, self.fleet
        first, learned = (self._accuracy(folder) for folder in (self._first, self._installed(self._current())))
        figures.accuracy |= {"slipped": first, "learned": learned, "true_labels": self._with_true_labels(answers)}
        figures.gain = learned - first, figures.accuracy["true_labels"] - first
        figures.totals = {"devices": fleet.device_totals(), "hub": fleet.hub_totals()}
        figures.human_labels = sum(camera.tally.labelled for camera in self.cameras)
        figures.teacher_labels = int(figures.totals["hub"]["feedback"])
        figures.failed_requests = sum(camera.tally.failed for camera in self.cameras)
        figures.more |= {"shares": figures.shares, "given": figures.given, "teacher_labels": figures.teacher_labels}

    # ── what the acts ask ─────────────────────────────────────────────────────────────────────

    @property
    def _watched(self) -> list[WatchedCamera]:
        return [camera for camera in self.cameras if isinstance(camera, WatchedCamera)]

    def _watch(self) -> list[Answered]:
        """The next `WATCHED` answers, after the `SETTLING` ones."""
        began = time.monotonic()

        def all_of_them() -> list[Answered]:
            answers = between(self._watched, began, time.monotonic())
            return answers[SETTLING:] if len(answers) >= SETTLING + WATCHED else []

        return self.fleet.wait(f"{SETTLING + WATCHED} answers", all_of_them, 240)

    def _compare(self, phase: str, answers: list[Answered], release: Path) -> None:
        """What clients got, beside what this release says of the very same inputs."""
        x, y = images_of(answers)
        told = float(np.mean([one.told == one.truth for one in answers]))
        alone = float((_labels(release, x) == y).mean())
        self.figures.given[phase] = told, alone
        self.view.say(
            f"{len(answers)} answers, {_share(answers):.1%} escalated: {told:.3f} right; the edge alone {alone:.3f}"
        )

    def _installed(self, digest: str) -> Path:
        """A release as the first device has it."""
        return self.folder / self.fleet.agents[0].device / "releases" / digest.removeprefix("sha256:")

    def _accuracy(self, release: Path) -> float:
        seen = self._seen()
        return float((_labels(release, seen.x) == seen.y).mean())

    def _with_true_labels(self, answers: list[Answered]) -> float:
        """Accuracy of heads made in the same way of as many inputs, drawn at random, with their true labels."""
        x, y = images_of(answers)
        features, seen = _features(self._first, x), self._seen()
        judged, found = _features(self._first, seen.x), []
        for number in range(DRAWS):
            chosen = np.random.default_rng(number).permutation(len(y))[:LABELS]
            held = np.arange(len(chosen)) % 4 == 0
            shares = (Share.of_rows(features[chosen][which], y[chosen][which], 10) for which in (~held, held))
            fit = fit_head(HeadStatistics(*shares))
            found.append((judged @ fit.weight.T + fit.bias).argmax(axis=1) == seen.y)
        return float(np.mean(found))

    def _seen(self) -> Split:
        """The slipped world on held-out digits, in several views: their noise differs."""
        views = [SLIPPED(self.digits.judge, seed=1 + number) for number in range(VIEWS)]
        return Split(np.concatenate([view.x for view in views]), np.concatenate([view.y for view in views]))


def _share(answers: list[Answered]) -> float:
    return float(np.mean([one.escalated for one in answers]))


def _outputs(release: Path, x: Images, role: str) -> Any:
    model = Model.open(release)
    try:
        name = next(output.name for output in model.outputs if output.role == role)
        return model.run({model.inputs[0].name: x}, [name])[name]
    finally:
        model.close()


def _labels(release: Path, x: Images) -> Labels:
    return np.asarray(_outputs(release, x, "probabilities")).argmax(axis=1)


def _features(release: Path, x: Images) -> Any:
    return np.asarray(_outputs(release, x, "features"), dtype=np.float64)
