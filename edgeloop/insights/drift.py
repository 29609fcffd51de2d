"""Drift: is this window what the reference says, but for chance? The same code on the device and in the hub.

Each aspect has a test with a known law under "nothing has changed": the histograms G (:mod:`edgeloop.insights.null`),
the means of the features a deviate (:mod:`edgeloop.insights.mean_shift`); and an effect that a person understands: the
share of the mass that moved. It drifted when both are large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from edgeloop.insights.aspects.privacy import noise_variance
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.histograms import HISTOGRAMS, histogram
from edgeloop.insights.levels import known_at, resolved
from edgeloop.insights.mean_shift import mean_deviates, moved_mass
from edgeloop.insights.null import g_statistic, normal_quantile, normal_tail, p_values, threshold
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array, Floats
from edgeloop.insights.window import Window
from edgeloop.records import dataclass

#: Of all windows without drift, at most this share raises an alarm, over all tests together.
ALPHA = 0.001
#: Smaller effects are not worth an alarm, however surely they are there: docs/decisions/insights-drift.md.
MIN_EFFECT = 0.15
#: With fewer reference rows per class than this, neighbouring classes are counted together.
ROWS_PER_CLASS = 5
#: Neighbouring classes of a model with more than this are counted together: the hub keeps them of every device.
MOST_CLASS_GROUPS = 256
#: A histogram whose noise leaves it no more than so many rows' worth says nothing: its few counts are the noise's.
LEAST_WORTH = 30.0
FEATURES, FEATURE_ROWS, NOISE = "features", "feature_rows", "noise"
_FINEST: Mapping[str, int] = {}
UP, DOWN, BOTH, MIX = "up", "down", "both", "mix"
_WORDS = {UP: "upward", DOWN: "downward", BOTH: "both ways"}

_Say = Callable[[Floats, Floats, float], tuple[str, str]]
"""Shares now and normally [B], and the effect → the direction, and a sentence for a person."""


@dataclass(frozen=True)
class AspectDrift:
    """One aspect of a window against the reference's.

    Attributes:
        name: ``confidence``, ``classes``, ``inputs[i]``, ``projections[i]``, … or ``features``.
        statistic: G of the two histograms; of ``features`` the largest deviate of a mean.
        threshold: what chance exceeds with the probability that this test may use up.
        p_value: the probability with which chance exceeds the statistic, this aspect alone.
        effect: share of the mass that moved, the total variation distance, 0…1.
        direction: ``up``, ``down`` or ``both`` ways; ``mix`` where there is no order.
        drifted: the statistic and the effect are both large.
        moved: a sentence for a person.
    """

    name: str
    statistic: float
    threshold: float
    p_value: float
    effect: float
    direction: str
    drifted: bool
    moved: str


@dataclass(frozen=True)
class DriftReport:
    """All aspects of a window against the reference's.

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

    @property
    def p_value(self) -> float:
        """Of all aspects together (Bonferroni): how often chance shows as much, in this comparison alone."""
        return min(1.0, min((aspect.p_value for aspect in self.aspects), default=1.0) * len(self.aspects))


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
    starts = class_groups(reference.arrays["classes"])
    # Each histogram on the coarser of the two sides' levels.
    levels = {found.name: max(resolved(side, found.name)[1] for side in (window, reference)) for found in HISTOGRAMS}
    now, normal = (counts_of(side, starts, levels) for side in (window, reference))
    one = {name: array[None] for name, array in now.items()}
    return Comparison(one, normal, alpha=alpha, min_effect=min_effect, input_names=input_names).report(0)


def counts_of(window: Window, starts: Array, levels: Mapping[str, int] = _FINEST) -> dict[str, Array]:
    """What a `Comparison` needs of a window.

    Args:
        window: any.
        starts: groups of classes, of the reference: :func:`class_groups`.
        levels: of the histograms that are not to be read in full.

    Returns:
        ``classes`` int64 [G]; each histogram that there is, int64 [rows, b]; ``feature_sum`` and ``feature_squares``
        float64 [F] with ``feature_rows`` int64 []; ``noise`` float64 [], the largest variance of privacy's noise in one
        of these counts.
    """
    arrays = window.arrays
    found = {"classes": group_classes(arrays["classes"], starts)}
    found |= {each.name: known_at(window, each.name, levels.get(each.name, 0)) for each in HISTOGRAMS}
    projected = (arrays[name] for name in histogram("projections").names if name in arrays)
    rows = sum(int(array[:1].sum()) for array in projected)  # at whatever level: their features are in the sums
    moments = {"feature_sum": arrays["feature_sum"], "feature_squares": arrays["feature_squares"]}
    added = max(-(-len(arrays["classes"]) // len(starts)), 2 ** max(levels.values(), default=0))
    others = {FEATURE_ROWS: np.array(rows), NOISE: np.array(noise_variance(arrays) * added)}
    return {name: array for name, array in found.items() if array.size} | moments | others


class Comparison:
    """Many windows of one schema against one reference, all at once: no loop over the windows.

    Attributes:
        drifted: bool [D], the windows in which an aspect drifted.

    Args:
        windows: what :func:`counts_of` gives of each, stacked: ``classes`` [D, G] and so on. What is not there is not
            compared.
        reference: what is normal, in the same bins and groups.
        against: as ``windows``, to be compared with in place of the reference, one for each window: the other devices.
            The reference is then what the law of chance is drawn from, no larger than any of them.
        alpha: probability of a false alarm for one window, over all its tests together, 0 < alpha < 1; one for all, or
            float64 [D].
        min_effect: smallest share of the mass that has to have moved, 0…1.
        input_names: what the input summaries are called.

    Raises:
        InsightsError: alpha or min_effect is out of range.
    """

    def __init__(
        self,
        windows: Mapping[str, Array],
        reference: Mapping[str, Array],
        *,
        against: Mapping[str, Array] | None = None,
        alpha: float | Floats = ALPHA,
        min_effect: float = MIN_EFFECT,
        input_names: Sequence[str] = (),
    ) -> None:
        most = np.broadcast_to(np.asarray(alpha, np.float64), len(windows["classes"]))
        if not ((most > 0) & (most < 1)).all() or not 0 <= min_effect <= 1:
            raise InsightsError(
                f"alpha is {alpha} and min_effect {min_effect}; both are shares, alpha strictly between 0 and 1"
            )
        self._windows, self._reference = windows, reference
        self._tests: list[_Histogram | _Features] = [*_histograms(windows, reference, against, input_names)]
        if against is None and (features := _features(windows, reference)) is not None:
            self._tests.append(features)
        # Which windows have counted what; of each, alpha is divided over what it has counted.
        shape = (len(self._tests), len(most))
        self._applies = np.array([test.applies for test in self._tests], bool).reshape(shape)
        self._share = most / np.maximum(self._applies.sum(axis=0), 1)
        found = [test.moved(self._share, min_effect) for test in self._tests]
        self._moved = np.array(found, bool).reshape(shape) & self._applies
        self.drifted: Array = self._moved.any(axis=0)

    def report(self, window: int) -> DriftReport:
        """Everything about one of the windows, in words too."""
        aspects = tuple(
            test.told(window, float(self._share[window]), bool(self._moved[place, window]))
            for place, test in enumerate(self._tests)
            if self._applies[place, window]
        )
        return DriftReport(
            bool(self.drifted[window]),
            aspects,
            int(self._windows["classes"][window].sum()),
            int(self._reference["classes"].sum()),
        )


class _Histogram:
    """One histogram of every window: counts [D, B] against [B], or against [D, B] with the law of chance of [B]."""

    def __init__(
        self,
        name: str,
        windows: Array,
        reference: Array,
        against: Array | None,
        say: _Say,
        noise: Floats,
        normal: float,
    ) -> None:
        self._name, self._say, self._reference = name, say, reference
        sizes = windows.sum(axis=-1)
        worth = _worth(sizes, reference, noise, normal)
        theirs = reference[None] if against is None else against
        rows = theirs.sum(axis=-1)
        told = (worth == 1.0) | (sizes * worth >= LEAST_WORTH)
        self.applies: Array = (sizes > 0) & (rows > 0) & told & bool(reference.sum())
        self._sizes = sizes * worth
        self._now = windows / np.maximum(sizes, 1)[:, None]
        self._normal = np.broadcast_to(theirs / np.maximum(rows, 1)[:, None], self._now.shape)
        self._statistics = g_statistic(windows * worth[:, None], theirs)
        usable = np.where(self.applies, self._sizes, 0)
        self._p = p_values(self._statistics, reference, usable)
        self._effects: Floats = np.abs(self._now - self._normal).sum(axis=-1) / 2

    def moved(self, share: Floats, min_effect: float) -> Array:
        return (self._p < share) & (self._effects >= min_effect)

    def told(self, window: int, share: float, drifted: bool) -> AspectDrift:
        effect = float(self._effects[window])
        direction, moved = self._say(self._now[window], self._normal[window], effect)
        limit = threshold(self._reference, int(self._sizes[window]), share)
        statistic, p = float(self._statistics[window]), float(self._p[window])
        return AspectDrift(self._name, statistic, limit, p, effect, direction, drifted, moved)


class _Features:
    """The means of the features of every window."""

    def __init__(self, deviates: Floats, shifts: Floats, applies: Array) -> None:
        self.applies = applies
        self._deviates, self._shifts, self._effects = deviates, shifts, moved_mass(shifts)
        # Two sides of each feature (Bonferroni).
        self._tests = 2 * deviates.shape[1]

    def moved(self, share: Floats, min_effect: float) -> Array:
        return np.asarray((self._significant(share) & (self._effects >= min_effect)).any(axis=1))

    def told(self, window: int, share: float, drifted: bool) -> AspectDrift:
        deviates, shifts, effects = self._deviates[window], self._shifts[window], self._effects[window]
        significant = self._significant(np.full(len(self._deviates), share))[window]
        most = int(np.where(significant, effects, -1.0).argmax() if significant.any() else deviates.argmax())
        up, down = int((significant & (shifts > 0)).sum()), int((significant & (shifts < 0)).sum())
        return AspectDrift(
            FEATURES,
            float(deviates.max()),
            normal_quantile(share / self._tests),
            min(1.0, float(normal_tail(deviates.max()[None])[0]) * self._tests),
            float(effects[most]),
            UP if up > 2 * down else DOWN if down > 2 * up else BOTH,
            drifted,
            f"features: the means of {up + down} of {len(shifts)} moved, most of all feature {most}, by "
            f"{min(abs(float(shifts[most])), 99.0):.1f} times its spread {_WORDS[UP if shifts[most] > 0 else DOWN]}",
        )

    def _significant(self, share: Floats) -> Array:
        limits = np.array([normal_quantile(float(one) / self._tests) for one in share])
        return np.asarray(self._deviates > limits[:, None])


def _histograms(
    windows: Mapping[str, Array],
    reference: Mapping[str, Array],
    against: Mapping[str, Array] | None,
    input_names: Sequence[str],
) -> Iterator[_Histogram]:
    others = None if against is None else against["classes"]
    noise = windows.get(NOISE, np.zeros(len(windows["classes"]))), float(reference.get(NOISE, np.zeros(())))
    yield _Histogram("classes", windows["classes"], reference["classes"], others, _said_of_classes, *noise)
    for found in HISTOGRAMS:
        if found.name not in windows:
            continue
        counts, normal = windows[found.name], reference[found.name]
        for row in range(len(normal)):
            others = None if against is None else against[found.name][:, row]
            say = _said(found.title(input_names, row))
            yield _Histogram(found.key(row), counts[:, row], normal[row], others, say, *noise)


def _worth(sizes: Array, reference: Array, noise: Floats, normal: float) -> Floats:
    """How many rows without noise tell as much as one with: float64 [D], 1.0 where there is none.

    Noise of variance v in a count where e are expected spreads it as if 1 / (1 + v / e) as many rows had been seen. The
    bin with the least is taken, so that chance alarms no more often than it may; and the reference's own noise is added
    as it counts at the window's size.
    """
    rows = reference.sum()
    shares = (reference + 0.5) / (rows + 0.5 * len(reference))
    expected = np.maximum(sizes * shares.min(), np.finfo(float).tiny)
    total = noise + normal * (sizes / max(float(rows), 1.0)) ** 2
    return np.asarray(np.where(total > 0, 1.0 / (1.0 + total / expected), 1.0))


def class_groups(reference: Array) -> Array:
    """Where the groups of neighbouring classes begin: int64 [G], ≤ `MOST_CLASS_GROUPS`; G = K where none are needed.

    They follow from the number of reference rows alone: grouping by the counts themselves would pick the classes that
    chance favoured, and alarm for it.
    """
    classes = len(reference)
    groups = min(classes, max(2, int(reference.sum()) // ROWS_PER_CLASS), MOST_CLASS_GROUPS)
    return np.arange(groups) * classes // groups


def group_classes(counts: Array, starts: Array) -> Array:
    """Counts [..., K] as counts [..., G]."""
    return np.asarray(np.add.reduceat(counts, starts, axis=-1))


def _features(windows: Mapping[str, Array], reference: Mapping[str, Array]) -> _Features | None:
    if FEATURE_ROWS not in windows or not reference[FEATURE_ROWS] or not reference["feature_squares"].any():
        return None
    rows = windows[FEATURE_ROWS]
    deviates, shifts = mean_deviates(
        windows["feature_sum"],
        windows["feature_squares"],
        np.maximum(rows, 1),
        reference["feature_sum"],
        reference["feature_squares"],
        int(reference[FEATURE_ROWS]),
    )
    # With noise in the sums the law of chance is another one; the histograms have to do.
    exact = windows.get(NOISE, np.zeros(len(rows))) + reference.get(NOISE, np.zeros(())) == 0
    return _Features(deviates, shifts, (rows > 0) & exact)


def _said_of_classes(now: Floats, normal: Floats, effect: float) -> tuple[str, str]:
    most = int(np.abs(now - normal).argmax())
    went = f"went from {100 * normal[most]:.0f} % to {100 * now[most]:.0f} % of the predictions"
    return MIX, f"classes: class {most} {went}"


def _said(title: str) -> _Say:
    def say(now: Floats, normal: Floats, effect: float) -> tuple[str, str]:
        shift = np.cumsum(normal - now)  # > 0 at a bin: mass has gone from below it to above it
        up, down = float(np.maximum(shift, 0).sum()), float(np.maximum(-shift, 0).sum())
        way = UP if up > 2 * down else DOWN if down > 2 * up else BOTH
        return way, f"{title}: {100 * effect:.0f} % of the mass moved {_WORDS[way]}"

    return say
