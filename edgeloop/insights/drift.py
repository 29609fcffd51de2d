"""Drift: is this window what the reference says, but for chance? The same code on the device and in the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.histograms import HISTOGRAMS
from edgeloop.insights.levels import known_at, resolved
from edgeloop.insights.null import g_statistic, threshold
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array
from edgeloop.insights.window import Window

#: Of all windows without drift, at most this share raises an alarm, over all tests together.
ALPHA = 0.001
#: Smaller effects are not worth an alarm, however surely they are there: docs/decisions/insights-drift.md.
MIN_EFFECT = 0.15
#: With fewer reference rows per class than this, neighbouring classes are counted together.
ROWS_PER_CLASS = 5


@dataclass(frozen=True)
class AspectDrift:
    """One histogram of a window against the reference's.

    Attributes:
        name: ``classes``, or that of a histogram: ``confidence``, ``inputs[3]``.
        statistic: G of the two histograms.
        threshold: what chance exceeds with the probability that this test may use up.
        effect: share of the mass that moved, the total variation distance, 0…1.
        drifted: statistic and effect are both large.
        moved: a sentence for a person.
    """

    name: str
    statistic: float
    threshold: float
    effect: float
    drifted: bool
    moved: str


@dataclass(frozen=True)
class DriftReport:
    """All histograms of a window against the reference's.

    Attributes:
        drifted: one of them drifted.
        aspects: those that both sides have counted, in the order of the window.
        window_size: rows of the window.
        reference_size: rows of the reference.
    """

    drifted: bool
    aspects: tuple[AspectDrift, ...]
    window_size: int
    reference_size: int

    @property
    def moved(self) -> tuple[AspectDrift, ...]:
        """What drifted, the largest effect first."""
        return tuple(sorted((a for a in self.aspects if a.drifted), key=lambda a: -a.effect))


def compare(
    window: Window,
    reference: Window,
    schema: WindowSchema,
    *,
    alpha: float = ALPHA,
    min_effect: float = MIN_EFFECT,
    input_names: Sequence[str] = (),
) -> DriftReport:
    """Compare a window with a reference: the profile's, or the windows of the days before.

    Rows are taken as independent. Rows of a video are not: for them merge windows over a longer time, and ask for
    several drifted windows in a row (the channel's policy does).

    Args:
        window: what was seen.
        reference: what is normal, in the same bins.
        schema: of both.
        alpha: probability of a false alarm, over all tests of this call together, 0 < alpha < 1.
        min_effect: smallest share of the mass that has to have moved, 0…1.
        input_names: what the input summaries are called: :attr:`Profile.input_names`.

    Raises:
        InsightsError: the windows have another schema, or alpha or min_effect is out of range.
    """
    if window.schema != schema or reference.schema != schema:
        raise InsightsError(
            "the window, the reference and the schema do not belong together; compare within one release"
        )
    if not 0 < alpha < 1 or not 0 <= min_effect <= 1:
        raise InsightsError(
            f"alpha is {alpha} and min_effect {min_effect}; both are shares, alpha strictly between 0 and 1"
        )
    tests = [
        (name, title, w, r)
        for name, title, w, r in _pairs(window, reference, input_names)
        if w.sum() > 0 and r.sum() > 0
    ]
    aspects = tuple(_test(*test, alpha=alpha / len(tests), min_effect=min_effect) for test in tests)
    return DriftReport(
        any(aspect.drifted for aspect in aspects),
        aspects,
        int(window.arrays["classes"].sum()),
        int(reference.arrays["classes"].sum()),
    )


def _pairs(window: Window, reference: Window, input_names: Sequence[str]) -> Iterator[tuple[str, str, Array, Array]]:
    """Key, title and the counts of both sides; on the coarser of the two sides' levels."""
    yield "classes", "classes", *_classes(window.arrays["classes"], reference.arrays["classes"])
    for histogram in HISTOGRAMS:
        level = max(resolved(side, histogram.name)[1] for side in (window, reference))
        mine, theirs = (known_at(side, histogram.name, level) for side in (window, reference))
        for row, (now, normal) in enumerate(zip(mine, theirs, strict=True)):
            yield histogram.key(row), histogram.title(input_names, row), now, normal


def _classes(window: Array, reference: Array) -> tuple[Array, Array]:
    """Class counts; grouped by number where the reference is too small for so many classes.

    Grouping by the counts themselves would pick the classes that chance favoured, and alarm for it.
    """
    classes = len(reference)
    groups = max(2, int(reference.sum()) // ROWS_PER_CLASS)
    if groups >= classes:
        return window, reference
    starts = np.arange(groups) * classes // groups
    return np.add.reduceat(window, starts), np.add.reduceat(reference, starts)


def _test(name: str, title: str, window: Array, reference: Array, *, alpha: float, min_effect: float) -> AspectDrift:
    statistic = float(g_statistic(window, reference))
    limit = threshold(reference, int(window.sum()), alpha)
    now, normal = window / window.sum(), reference / reference.sum()
    effect = float(np.abs(now - normal).sum() / 2)
    sentence = _class_sentence(now, normal) if name == "classes" else _histogram_sentence(title, now, normal, effect)
    return AspectDrift(name, statistic, limit, effect, statistic > limit and effect >= min_effect, sentence)


def _class_sentence(now: Array, normal: Array) -> str:
    most = int(np.abs(now - normal).argmax())
    return f"classes: class {most} went from {100 * normal[most]:.0f} % to {100 * now[most]:.0f} % of the predictions"


def _histogram_sentence(title: str, now: Array, normal: Array, effect: float) -> str:
    shift = np.cumsum(normal - now)  # > 0 at a bin: mass has gone from below it to above it
    up, down = float(np.maximum(shift, 0).sum()), float(np.maximum(-shift, 0).sum())
    way = "upward" if up > 2 * down else "downward" if down > 2 * up else "both ways"
    return f"{title}: {100 * effect:.0f} % of the mass moved {way}"
