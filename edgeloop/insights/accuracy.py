"""Accuracy from a window alone: what is expected before any label exists, what audits say, what chosen labels say.

Three figures, never mixed: they rest on different assumptions, and where they contradict one another that is the news.
docs/explanations/accuracy.md says what each means and when it cannot be trusted.
"""

from __future__ import annotations

import math

from edgeloop.insights.aspects import audits as audit_places
from edgeloop.insights.aspects import expected as places
from edgeloop.insights.binning import add_neighbours
from edgeloop.insights.calibration import FAMILIAR_SHARE
from edgeloop.insights.levels import resolved
from edgeloop.insights.profile import Profile
from edgeloop.insights.sizes import Floats, Ints
from edgeloop.insights.window import Window
from edgeloop.records import dataclass

#: Intervals hold the truth 19 times in 20.
Z = 1.959964
#: With fewer answers the estimate says less than its interval.
FEWEST_ROWS = 100
#: Share of the answers that may lie beyond the familiar distance; 0.05 of the validation rows do. This and the next
#: were chosen on drifted digits: docs/decisions/insights-accuracy.md.
MOST_BEYOND = 0.10
#: The estimate may differ so much from the accuracy on the validation rows.
MOST_MOVED = 0.05
#: Of the answers, so many have to be placed before `MOST_BEYOND` means anything.
FEWEST_PLACED = 50
#: What the estimate is off by at most, for each row beyond the familiar distance that there should not be.
OFF_BY_BEYOND = 0.7
#: Audits that are weighted by the chances of their answers; with fewer, their plain share is taken, without a bias.
ENOUGH_AUDITS = 30
#: Chances can make one audit worth so many at most.
MOST_GAIN = 4.0
#: The chosen labels are weighted when they cover so much of the answers by confidence.
LEAST_COVERED = 0.9


@dataclass(frozen=True)
class Share:
    """An accuracy, 0…1, the interval that holds the truth 19 times in 20, and the number of rows that it rests on."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Estimate:
    """What accuracy is expected before any label exists.

    Attributes:
        expected: None when nothing can be said.
        trusted: whether it can be relied on.
        reason: why not; a sentence for a person, "" when it can.
        beyond: share of the answers that lie beyond the familiar distance, or None when that is not known.
    """

    expected: Share | None
    trusted: bool
    reason: str
    beyond: float | None


@dataclass(frozen=True)
class Audited:
    """What audits say: answers drawn at random, whoever was sure of them.

    Attributes:
        accuracy: of all answers, corrected by the audits; None when none is labelled yet.
        confident: of the answers that are surer than the median of the validation rows, by audits alone.
        drawn: answers that were drawn.
        labelled: of them, those whose label has come. What is missing may be missing for a reason.
    """

    accuracy: Share | None
    confident: Share | None
    drawn: int
    labelled: int


@dataclass(frozen=True)
class Labelled:
    """What the labels say that somebody chose to give.

    Attributes:
        plain: share of them that say the answer was right; None without labels.
        weighted: the same, each confidence counted as often as it was answered: right if, among answers of the same
            confidence, those that are labelled are as often right as those that are not. None where the labels leave
            out too many confidences.
    """

    plain: Share | None
    weighted: Share | None


@dataclass(frozen=True)
class Accuracy:
    """All three."""

    estimate: Estimate
    audits: Audited
    labels: Labelled


def assess(window: Window, profile: Profile) -> Accuracy:
    """What a window says of the accuracy of its answers.

    Args:
        window: of one device, or of many merged.
        profile: of its release.
    """
    audits, labels = audited(window), labelled(window)
    return Accuracy(_contradicted(estimate(window, profile), audits, labels), audits, labels)


def estimate(window: Window, profile: Profile) -> Estimate:
    """The accuracy that is expected of a window's answers, without any label.

    Args:
        window: any.
        profile: of its release.
    """
    calibration = profile.calibration
    rows, placed, beyond_count = (int(n) for n in window.arrays["expected_rows"])
    if calibration is None:
        why = (
            "this release has no calibration: it was built from too few labelled rows, or its head was retrained for a "
            "world that the validation data do not show; audits and labels say more"
        )
        return Estimate(None, False, why, None)
    if rows == 0:
        return Estimate(None, False, "nothing was counted for an estimate yet", None)
    chance, variance = (float(total) for total in window.arrays["expected"])
    value = chance / rows
    beyond = beyond_count / placed if placed else None
    # What rows vary by chance, and what the validation rows leave open of the chances themselves.
    prior = (calibration.right + 1) / (calibration.rows + 2)
    sampling = Z * math.sqrt(variance / rows**2 + prior * (1 - prior) / calibration.rows)
    strange = 0.0 if beyond is None else OFF_BY_BEYOND * max(beyond - (1 - FAMILIAR_SHARE), 0.0)
    half = sampling + strange
    share = Share(value, max(value - half, 0.0), min(value + half, 1.0), rows)
    why = _distrust(value, rows, placed, beyond, calibration.accuracy)
    return Estimate(share, not why, why, beyond)


def audited(window: Window) -> Audited:
    """What the audits in a window say.

    The labelled audits alone are an accuracy without a bias. Where there are enough, it is moved by what their chances
    differ from those of all answers (a regression estimate; prediction-powered inference, Angelopoulos et al. 2023):
    the same truth with less noise. The interval is Wilson's, with as many audits as the noise that is left is worth.
    """
    counts, (chance, square, of_right) = window.arrays["audits"], window.arrays["audit_chances"]
    drawn, n, right = (int(total) for total in counts.sum(axis=1))
    middle = counts.shape[1] // 2
    confident = _share(counts[audit_places.RIGHT, middle:], counts[audit_places.LABELLED, middle:])
    if n == 0:
        return Audited(None, None, drawn, 0)
    rows, value, gain = int(window.arrays["expected_rows"][places.ROWS]), right / n, 1.0
    spread = square / n - (chance / n) ** 2
    if n >= ENOUGH_AUDITS and rows and chance > 0 and spread > 0:
        together = of_right / n - chance / n * value
        slope = min(max(together / spread, 0.0), 1.0)
        smooth = (right + 1) / (n + 2)
        left = smooth * (1 - smooth) - 2 * slope * together + slope**2 * spread
        value += slope * (float(window.arrays["expected"][places.CHANCE]) / rows - chance / n)
        gain = min(max(smooth * (1 - smooth) / max(left, 1e-12), 1.0), MOST_GAIN)
    return Audited(wilson(min(max(value, 0.0), 1.0), n, gain), confident, drawn, n)


def labelled(window: Window) -> Labelled:
    """What the chosen labels in a window say."""
    counts, level = resolved(window, "confidence")
    labels = add_neighbours(window.arrays["expected_labels"], level)
    given, right = labels[places.LABELLED], labels[places.RIGHT]
    if not given.sum():
        return Labelled(None, None)
    return Labelled(_share(right, given), _weighted(counts[0], given, right))


def wilson(value: float, rows: int, gain: float = 1.0) -> Share:
    """Wilson's interval (1927) of a share.

    Args:
        value: the share.
        rows: that it was counted on.
        gain: what one of them is worth.
    """
    n = rows * gain
    middle = (value + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(value * (1 - value) / n + Z * Z / (4 * n * n))
    return Share(value, min(max(middle - half, 0.0), value), max(min(middle + half, 1.0), value), rows)


def _share(right: Ints, given: Ints) -> Share | None:
    total = int(given.sum())
    return wilson(int(right.sum()) / total, total) if total else None


def _weighted(answers: Ints, given: Ints, right: Ints) -> Share | None:
    """The share of right answers, each bin weighted as it was answered; with its interval."""
    total, covered = int(answers.sum()), given > 0
    if not total or int(answers[covered].sum()) < LEAST_COVERED * total:
        return None
    weights: Floats = answers[covered] / answers[covered].sum()
    value = float(weights @ (right[covered] / given[covered]))
    smooth = (right[covered] + 1) / (given[covered] + 2)
    noise = float(weights**2 @ (smooth * (1 - smooth) / given[covered]))
    middle = float(weights @ smooth)
    n = int(given.sum())
    return wilson(value, n, middle * (1 - middle) / noise / n)


def _distrust(value: float, rows: int, placed: int, beyond: float | None, validated: float) -> str:
    """Why an estimate cannot be relied on, or ""."""
    if rows < FEWEST_ROWS:
        return f"{rows} answers are too few; {FEWEST_ROWS} are needed"
    if beyond is None or placed < FEWEST_PLACED:
        return "how far the inputs are from the validation data is not known: too few rows were observed in full"
    if beyond > MOST_BEYOND:
        return (
            f"{100 * beyond:.0f} % of the inputs lie farther from the validation data than "
            f"{100 * FAMILIAR_SHARE:.0f} % of these do; a model may be sure there, and wrong"
        )
    if abs(value - validated) > MOST_MOVED:
        return (
            f"confidence has moved: {100 * value:.0f} % of the answers are expected to be right, "
            f"{100 * validated:.0f} % were on the validation data"
        )
    return ""


def _contradicted(found: Estimate, audits: Audited, labels: Labelled) -> Estimate:
    """The estimate, no longer trusted where audits or weighted labels say another thing."""
    if found.expected is None or not found.trusted:
        return found
    for what, other in (("the audits say", audits.accuracy), ("the labels say", labels.weighted)):
        if other is not None and (other.high < found.expected.low or other.low > found.expected.high):
            reason = f"{what} {100 * other.value:.0f} % ({100 * other.low:.0f} to {100 * other.high:.0f} %)"
            return Estimate(found.expected, False, reason, found.beyond)
    return found
