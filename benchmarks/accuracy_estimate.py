"""Estimated against true accuracy, from aggregates alone: digits with graded drifts, with and without audits.

    python -m benchmarks.accuracy_estimate [--quick]

The network of `examples.digits` is trained, and its profile calibrated on rows that it has not seen. Then windows of
1,000 answers are counted under every drift of `benchmarks.kit.graded`; all that is used of them are their sums. An
estimate is *off* when it is more than 0.05 from the share of the window's answers that were right; a warning is an
estimate that says that it cannot be trusted. A twentieth of the answers is audited.

Bounds: of the estimates that are trusted the mean error is at most 0.05, at most a tenth of the windows that are off is
trusted, at most one undrifted window in twenty is warned of, and the mean error with audits is at most 0.05.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.kit.graded import Grade, grades
from edgeloop.insights import Observer, Profile, Window, drawn_rows
from edgeloop.insights.accuracy import Accuracy, Estimate, Share, assess, estimate
from edgeloop.insights.calibrating import calibrated
from examples.digits import data
from examples.digits.model import train

Array = npt.NDArray[Any]
VALIDATION, WINDOW, WINDOWS, AUDIT_SHARE = 300, 1_000, 3, 0.05
#: Other classes alone are no drift of what a digit looks like.
UNDRIFTED = ("none", "other classes")
OFF, MOST_ERROR, MOST_MISSED, MOST_FALSE = 0.05, 0.05, 0.10, 0.05


@dataclass(frozen=True)
class Seen:
    """One window: what was true of it, and what its sums say.

    Attributes:
        grade: of the drift.
        truth: share of its answers that were right.
        estimate: before any label.
        found: with the labels of the audits.
    """

    grade: Grade
    truth: float
    estimate: Estimate
    found: Accuracy

    @property
    def error(self) -> float:
        """Of the estimate."""
        assert self.estimate.expected is not None
        return self.estimate.expected.value - self.truth

    @property
    def off(self) -> bool:
        """Whether the estimate is wrong by more than it may be."""
        return abs(self.error) > OFF

    @property
    def audited(self) -> Share:
        """The figure that the audits correct."""
        assert self.found.audits.accuracy is not None
        return self.found.audits.accuracy


class World:
    """A network, its profile, and digits that neither has seen."""

    def __init__(self, seed: int) -> None:
        digits = data.load()
        x, y = (np.concatenate([getattr(part, name) for part in vars(digits).values()]) for name in ("x", "y"))
        order = np.random.default_rng(seed).permutation(len(y))
        cuts = np.cumsum([data.TRAIN, VALIDATION])
        (fit_x, seen_x, self.x), (fit_y, seen_y, self.y) = np.split(x[order], cuts), np.split(y[order], cuts)
        self._model = train(data.Split(fit_x, fit_y), seed)
        scores, features = self.outputs(seen_x)
        self.profile = calibrated(Profile.fit(seen_x, scores, features), seen_x, scores, features, seen_y)

    def outputs(self, x: Array) -> tuple[Array, Array]:
        """Probabilities and the features before the last layer, as the package's graph gives them."""
        features = x
        for weight, bias in list(zip(self._model.coefs_, self._model.intercepts_, strict=True))[:-1]:
            features = np.maximum(features @ weight + bias, 0)
        scores = features @ self._model.coefs_[-1] + self._model.intercepts_[-1]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), features.astype(np.float32)

    def window(self, grade: Grade, number: int) -> Seen:
        """A window of answers under a drift; the labels of the audited ones have come."""
        random = np.random.default_rng((number, 1))
        chosen = random.choice(len(self.y), WINDOW)
        x, y = grade.apply(self.x[chosen], self.y[chosen], random)
        scores, features = self.outputs(x)
        top, sure = scores.argmax(axis=1), scores.max(axis=1)
        drawn = np.array([bool(drawn_rows(f"{number}-{row}", 1, AUDIT_SHARE)) for row in range(WINDOW)])
        window, observer = Window.zero(self.profile.schema), Observer(self.profile)
        observer.observe(window, x, scores, features, np.zeros(0, np.int64), drawn=drawn)
        some = (features[drawn], top[drawn], y[drawn], np.zeros(drawn.sum(), bool))
        observer.feedback(window, *some, confidence=sure[drawn], audited=np.ones(drawn.sum(), bool))
        return Seen(grade, float((top == y).mean()), estimate(window, self.profile), assess(window, self.profile))


def main() -> int:
    """Exit status: 0 when the bounds hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy_estimate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one network in place of four")
    worlds = [World(seed) for seed in range(1 if parser.parse_args().quick else 4)]
    methods = ", ".join(str(world.profile.calibration and world.profile.calibration.method) for world in worlds)
    print(f"{len(worlds)} networks; {VALIDATION} validation rows each; calibrated by {methods}")
    print(f"windows of {WINDOW} answers, {WINDOWS} for each grade and network; {AUDIT_SHARE:.0%} of them audited")
    found = [
        [world.window(grade, _number(w, i, n)) for w, world in enumerate(worlds) for n in range(WINDOWS)]
        for i, grade in enumerate(grades())
    ]
    _print_grades(found)
    return _print_summary([seen for some in found for seen in some])


def _number(world: int, grade: int, repeat: int) -> int:
    return (world * 1_000 + grade) * 100 + repeat


def _print_grades(found: Sequence[Sequence[Seen]]) -> None:
    print(
        f"{'drift':34} {'true':>6} {'estimate':>9} {'error':>6} {'beyond':>7} {'warned':>7} {'audited':>8} {'error':>6}"
    )
    for some in found:
        grade, expected = some[0].grade, [seen.estimate.expected for seen in some]
        columns = (
            _mean(seen.truth for seen in some),
            _mean(share.value for share in expected if share is not None),
            _mean(abs(seen.error) for seen in some),
            _mean(seen.estimate.beyond or 0.0 for seen in some),
            _mean(not seen.estimate.trusted for seen in some),
            _mean(seen.audited.value for seen in some),
            _mean(abs(seen.audited.value - seen.truth) for seen in some),
        )
        name = f"{grade.kind} {grade.strength}"
        print(
            f"{name:34} {columns[0]:6.3f} {columns[1]:9.3f} {columns[2]:6.3f} {columns[3]:7.0%} {columns[4]:7.0%} "
            f"{columns[5]:8.3f} {columns[6]:6.3f}"
        )


def _print_summary(found: Sequence[Seen]) -> int:
    trusted = [seen for seen in found if seen.estimate.trusted]
    off, fine = [seen for seen in found if seen.off], [seen for seen in found if not seen.off]
    clean = [seen for seen in found if seen.grade.kind in UNDRIFTED]
    error, missed = _mean(abs(seen.error) for seen in trusted), _mean(seen.estimate.trusted for seen in off)
    false, audited = _mean(not s.estimate.trusted for s in clean), _mean(abs(s.audited.value - s.truth) for s in found)
    worst = max(abs(seen.error) for seen in trusted)
    print(f"{len(found)} windows, {len(trusted)} estimates trusted, {len(off)} off by more than {OFF}")
    print(f"mean error of the trusted estimates      {error:.3f}  (bound {MOST_ERROR}; the worst {worst:.3f})")
    print(f"mean error of all estimates              {_mean(abs(seen.error) for seen in found):.3f}")
    print(f"off and not warned of                    {missed:.1%}  (bound {MOST_MISSED:.0%})")
    print(f"fine and warned of, without drift        {false:.1%}  (bound {MOST_FALSE:.0%})")
    print(f"fine and warned of, all drifts           {_mean(not seen.estimate.trusted for seen in fine):.1%}")
    print(
        f"intervals of trusted ones with the truth {_mean(_holds(s.estimate.expected, s.truth) for s in trusted):.1%}"
    )
    print(f"mean error with audits                   {audited:.3f}  (bound {MOST_ERROR})")
    print(f"intervals of audits with the truth       {_mean(_holds(seen.audited, seen.truth) for seen in found):.1%}")
    caught = _mean(seen.found.estimate.trusted for seen in off)
    print(f"off and trusted even after the audits    {caught:.1%}")
    held = error <= MOST_ERROR and missed <= MOST_MISSED and false <= MOST_FALSE and audited <= MOST_ERROR
    return 0 if held else 1


def _holds(share: Share | None, truth: float) -> bool:
    return share is not None and share.low <= truth <= share.high


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values) or [0.0]))


if __name__ == "__main__":
    sys.exit(main())
