"""One split of the digits: before a drift, during it, and after learning from the teacher's answers alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from benchmarks.cascade.peers import RULES
from benchmarks.cascade.worlds import CLASSES, Array, Cast, Head
from cloud_hub.training.head import fit_head
from cloud_hub.training.head_statistics import HeadStatistics, Share
from edgeloop.cascade.combining import better
from edgeloop.cascade.hardness import Gauge
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.cascade.steering import Steering
from edgeloop.insights import holdout_share
from examples.cascade.models import SLIPPED
from examples.digits.data import CLEAN, Slip, Split

SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
POLICY = EscalationPolicy(mode="wait", max_share=0.4)
#: Passes of 600 digits before the drift, while the edge's first head sees it, and with the new head.
BEFORE, DURING, AFTER = 2, 2, 2
PER_SECOND = 20.0
#: Views of the held-out digits that a curve is taken over: in a slipped world the noise differs.
VIEWS = 3
OURS, BELIEVED = "edgeloop", "… teacher believed"
"""The rule with `better`, as agents have it of a calibrated teacher; and of any other, whose answers they give."""


@dataclass
class Phase:
    """What was measured of one phase.

    Attributes:
        curves: rule → accuracy at each of `SHARES`, float64.
        edge: accuracy of the edge alone.
        all_sent: accuracy of the teacher's answers, all of them.
        share: of the stream that was escalated; the last pass of it.
        given: accuracy of what the stream's clients got.
        edge_given: accuracy of the edge's own answers to them.
    """

    curves: dict[str, Array] = field(default_factory=dict)
    edge: float = 0.0
    all_sent: float = 0.0
    share: float = 0.0
    peak: float = 0.0
    given: float = 0.0
    edge_given: float = 0.0


@dataclass
class Told:
    """What the whole story of a split came to."""

    phases: dict[str, Phase]
    learned: float
    true_random: float
    true_same: float
    labels: int


class Device:
    """A device in one split: its release, its steering, and what the teacher's answers left in its statistics."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.now, self.asked = 1.8e9, 0
        self.labels: list[tuple[str, Array, int, int, float]] = []
        self.release(cast.head, cast.gauge)

    def release(self, head: Head, gauge: Gauge) -> None:
        """Run another head; what was learned of the one before is forgotten."""
        self.head, self.gauge, self.labels = head, gauge, []
        self.steering = Steering(POLICY, CLASSES)

    def stream(self, seen: Split, phase: Phase) -> None:
        """Answer one row after another, escalate, and learn."""
        features = self.cast.features(seen.x)
        scores = self.head(features)
        signals = self.gauge.signals(scores.astype(np.float32), features.astype(np.float32), seen.x)
        taught, sure = self.cast.taught(seen.x)
        own = scores.argmax(axis=1)
        given, drawn = own.copy(), np.zeros(len(own), dtype=bool)
        for row in range(len(own)):
            self.asked, self.now = self.asked + 1, self.now + 1 / PER_SECOND
            name = f"bench-{self.asked}"
            draw = self.steering.draw(name, signals[row : row + 1], self.now)
            if draw.drawn[0]:
                drawn[row] = True
                given[row] = better(int(own[row]), float(draw.hardness[0]), int(taught[row]), float(sure[row]))
                chance = float(draw.probability[0])
                self.steering.learn(signals[row], int(taught[row]), chance)
                if self.steering.learner.due:
                    self.steering.learner.fit()
                weight = min(1 / chance, POLICY.max_weight)
                self.labels.append((name, features[row], int(taught[row]), int(seen.y[row]), weight))
        phase.share = float(drawn.mean())
        phase.peak = max(phase.peak, *(float(part.mean()) for part in np.array_split(drawn, 3)))
        phase.given, phase.edge_given = float((given == seen.y).mean()), float((own == seen.y).mean())

    def curves(self, world: Slip, phase: Phase) -> None:
        """Accuracy against share on held-out digits."""
        views = [world(self.cast.digits.judge, seed) for seed in range(1 if world == CLEAN else VIEWS)]
        x, y = (np.concatenate(parts) for parts in zip(*((view.x, view.y) for view in views), strict=True))
        features = self.cast.features(x)
        scores = self.head(features)
        own, (taught, sure) = scores.argmax(axis=1), self.cast.taught(x)
        phase.edge, phase.all_sent = float((own == y).mean()), float((taught == y).mean())
        hardness = self.steering.learner.hardness(
            self.gauge.signals(scores.astype(np.float32), features.astype(np.float32), x)
        )
        chosen = [
            better(*row) for row in zip(own.tolist(), hardness.tolist(), taught.tolist(), sure.tolist(), strict=True)
        ]
        phase.curves[OURS] = _curve(hardness, own == y, np.array(chosen) == y)
        phase.curves[BELIEVED] = _curve(hardness, own == y, taught == y)
        for name, rule in RULES.items():
            phase.curves[name] = _curve(rule(scores), own == y, taught == y)


def tell(cast: Cast) -> Told:
    """The story of one split."""
    device, phases = Device(cast), {}
    seed = int(cast.digits.train.y.sum())
    for name, world, passes in (("before", CLEAN, BEFORE), ("during", SLIPPED, DURING), ("after", SLIPPED, AFTER)):
        if name == "during":
            device.labels = []
        if name == "after":
            judge = SLIPPED(cast.digits.judge, seed=77)
            features = cast.features(judge.x)
            labels, drawn = device.labels, _rows_of(device, seed)

            def accuracy(head: Head, features: Array = features, truth: Array = judge.y) -> float:
                return float((head(features).argmax(axis=1) == truth).mean())

            fitted = _fitted([(name, x, taught, weight) for name, x, taught, _, weight in labels])
            told = Told(
                phases,
                learned=accuracy(fitted) - accuracy(cast.head),
                true_random=accuracy(_fitted(drawn)) - accuracy(cast.head),
                true_same=accuracy(_fitted([(name, x, true, weight) for name, x, _, true, weight in labels]))
                - accuracy(cast.head),
                labels=len(labels),
            )
            device.release(fitted, Gauge(None, CLASSES))
        phases[name] = Phase()
        for number in range(passes):
            device.stream(_shuffled(world(cast.digits.stream, seed + number), seed + number), phases[name])
        device.curves(world, phases[name])
    return told


def _rows_of(device: Device, seed: int) -> list[tuple[str, Array, int, float]]:
    """As many rows of the same stream, drawn at random, with their true labels."""
    passes = [SLIPPED(device.cast.digits.stream, seed + number) for number in range(DURING)]
    x, y = np.concatenate([one.x for one in passes]), np.concatenate([one.y for one in passes])
    chosen = np.random.default_rng(seed).permutation(len(y))[: len(device.labels)]
    features = device.cast.features(x[chosen])
    return [(f"true-{row}", features[row], int(y[chosen][row]), 1.0) for row in range(len(chosen))]


def _fitted(labels: list[tuple[str, Array, int, float]]) -> Head:
    """The hub's own head trainer, on what devices' statistics would hold."""
    names, features, classes, weights = (list(part) for part in zip(*labels, strict=True))
    held = np.array([holdout_share(name) for name in names])
    x, y, w = np.array(features), np.array(classes), np.array(weights)

    def share(which: Array) -> Share:
        return Share.of_rows(x[which], y[which], CLASSES, w[which])

    fit = fit_head(HeadStatistics(share(~held), share(held)), min_per_class=1)
    return Head(fit.weight, fit.bias)


def _shuffled(split: Split, seed: int) -> Split:
    order = np.random.default_rng(seed).permutation(len(split.y))
    return Split(split.x[order], split.y[order])


def _curve(hardness: Array, own: Array, escalated: Array) -> Array:
    """Accuracy where the hardest rows are escalated, at each of `SHARES`."""
    order = np.argsort(-hardness, kind="stable")
    found = []
    for share in SHARES:
        right = own.copy()
        hard = order[: round(share * len(order))]
        right[hard] = escalated[hard]
        found.append(right.mean())
    return np.array(found)
