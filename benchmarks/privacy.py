"""What differential privacy costs: accuracy of a retrained head, and power to see drift, at epsilon 1, 3, 10 and off.

Real digits and the example's network. A day has 24 windows, or one; delta is 1e-6. The camera slips (25°, dimmed,
noise) and labels come: a head is fitted from the noised sums alone and judged on slipped digits that were never
labelled. And windows of clean and of slipped digits are compared with the profile, as the hub does it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from sklearn.neural_network import MLPClassifier

from cloud_hub.training.head import fit_head
from cloud_hub.training.head_statistics import HeadError, HeadStatistics
from edgeloop.insights import Observer, Profile, Window, compare
from edgeloop.insights.privacy.budget import INSTALL, work_out
from edgeloop.insights.privacy.mechanism import noise
from edgeloop.insights.privacy.rule import clip_of
from examples.digits.data import CLEAN, FIRST_SLIP, Slip, Split, load
from examples.digits.model import train

EPSILONS: tuple[float | None, ...] = (None, 10.0, 3.0, 1.0)
DELTA = 1e-6
#: Labels and windows of a day.
DAYS = ((600, 24), (600, 1), (6_000, 24), (6_000, 1), (60_000, 1))
SIZES = (1_000, 10_000, 30_000)
SLIPS = (CLEAN, Slip("turned by 8°", degrees=8.0), Slip("turned by 15°", degrees=15.0), FIRST_SLIP)


@dataclass(frozen=True, eq=False)
class World:
    """The network, what normal is, and digits that nobody was trained on."""

    network: MLPClassifier
    profile: Profile
    stream: Split
    judge: Split

    @classmethod
    def make(cls) -> World:
        """Train, and profile the validation data."""
        digits = load()
        network = train(digits.train)
        features, probabilities = outputs(network, digits.validation.x)
        return cls(network, Profile.fit(digits.validation.x, probabilities, features), digits.stream, digits.judge)

    def seen(self, slip: Slip, rows: int, seed: int) -> Split:
        """Digits of the stream, drawn again and again, each with noise of its own, as a camera sees them."""
        chosen = np.random.default_rng(seed).integers(0, len(self.stream.y), rows)
        return slip(Split(self.stream.x[chosen], self.stream.y[chosen]), seed)

    def window(self, split: Split, clip: float, labels: bool) -> Window:
        """One window of them, with all labels or none."""
        features, probabilities = outputs(self.network, split.x)
        window, observer = Window.zero(self.profile.schema, "sha256:benchmark"), Observer(self.profile, clip)
        nanoseconds = np.full(len(split.x), 200_000)
        observer.observe(window, split.x, probabilities, features, nanoseconds)
        if labels:
            holdout = np.arange(len(split.y)) % 4 == 0
            observer.feedback(window, features, probabilities.argmax(axis=1), split.y, holdout)
        return window


def outputs(network: MLPClassifier, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, 64], the last layer's input, and probabilities [N, 10]."""
    hidden = images
    for weight, bias in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
        hidden = np.maximum(hidden @ weight + bias, 0.0)
    return hidden.astype(np.float32), network.predict_proba(images).astype(np.float32)


def multiplier(epsilon: float, windows: int) -> float:
    """The noise of a window where a day has so many."""
    return work_out(epsilon, DELTA, windows, {}).multiplier


def head_accuracy(world: World, labels: int, windows: int, epsilon: float | None, seed: int) -> float | None:
    """Accuracy on slipped digits of the head that a day's noised sums give; None when they give none."""
    clip = clip_of(world.profile)
    assert clip is not None  # the network exposes its features
    total = Window.zero(world.profile.schema)
    scale = None if epsilon is None else multiplier(epsilon, windows)
    for number in range(windows):
        split = world.seen(FIRST_SLIP, labels // windows, 1_000 * seed + number)
        window = world.window(split, np.inf if scale is None else clip, labels=True)
        total = total.merge(window if scale is None else noise(window, scale, clip))
    try:
        fit = fit_head(HeadStatistics.of_window(total))
    except HeadError:
        return None
    judged = FIRST_SLIP(world.judge, seed=99)
    features, _ = outputs(world.network, judged.x)
    return float(((features @ fit.weight.T + fit.bias).argmax(axis=1) == judged.y).mean())


def drifted(world: World, slip: Slip, rows: int, epsilon: float | None, trials: int) -> float:
    """Share of windows in which the hub's comparison sees drift."""
    clip = clip_of(world.profile)
    assert clip is not None
    scale = None if epsilon is None else multiplier(epsilon, 24)
    found = 0
    for trial in range(trials):
        window = world.window(world.seen(slip, rows, trial), np.inf if scale is None else clip, labels=False)
        found += compare(
            window if scale is None else noise(window, scale, clip), world.profile.reference, world.profile.schema
        ).drifted
    return found / trials


def main() -> int:
    """Exit status: 0 when it ran."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws and windows")
    quick = parser.parse_args().quick
    try:
        multiplier(1.0, 1)
    except ImportError:
        print(f"this needs dp-accounting: {INSTALL}", file=sys.stderr)
        return 1
    world, draws, trials = World.make(), 1 if quick else 3, 5 if quick else 20
    columns = "".join(f"{'off' if epsilon is None else f'epsilon {epsilon:g}':>14}" for epsilon in EPSILONS)

    judged = FIRST_SLIP(world.judge, seed=99)
    before = float((world.network.predict(judged.x) == judged.y).mean())
    print(f"accuracy on slipped digits; {before:.3f} before retraining\n{'labels in windows of a day':<34}{columns}")
    for labels, windows in DAYS[:2] if quick else DAYS:
        cells = []
        for epsilon in EPSILONS:
            each = [head_accuracy(world, labels, windows, epsilon, seed) for seed in range(draws)]
            heads = [one for one in each if one is not None]
            cells.append(f"{np.mean(heads):.3f}" if len(heads) == len(each) else f"{len(each) - len(heads)} no head")
        print(f"{f'{labels:,} in {windows}':<34}{''.join(f'{cell:>14}' for cell in cells)}", flush=True)

    print(f"\nshare of {trials} hourly windows in which drift is seen\n{'predictions in a window':<34}{columns}")
    for slip in SLIPS:
        for rows in SIZES[:1] if quick else SIZES:
            cells = [f"{drifted(world, slip, rows, epsilon, trials):.2f}" for epsilon in EPSILONS]
            print(f"{f'{slip.name}, {rows:,}':<34}{''.join(f'{cell:>14}' for cell in cells)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
