"""May a candidate be rolled out? A pure function of the evidence and the channel's policy; it fails closed.

Two figures decide above all, and the verdict names both:

- The **held-out error**: mean squared error on the held-out quarter of the fleet's feedback, exact, computed from sums
  (``cloud_hub.training.head.holdout_error``). The candidate's must be lower than the current release's, by at least
  ``min_improvement`` of it, and its approximate accuracy on the same feedback must be higher. This is the new world.
- The **accuracy on the package's validation set**, of the worst variant. It must not be below ``validation_floor``.
  This is the old world: a fleet that has moved for good sets the floor to 0, one that sees both worlds does not.

Behind an average stand classes and segments: each has floors of its own, in either world. And a better answer that
comes too late, or does not fit, is none: how long an answer takes and how large the files are is compared with the
current release. What the policy asks for and nobody has measured is a refusal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cloud_hub.policy import GatePolicy

#: With fewer held-out labels the comparison of two errors says nothing; nor does the accuracy of a class or a segment.
MIN_HOLDOUT_LABELS = 10
#: What an answer may take longer whatever the ratio is: the noise of two medians on a busy machine, milliseconds.
LATENCY_NOISE_MS = 0.5
#: Classes or segments that a reason names.
MOST_NAMED = 5


@dataclass(frozen=True)
class Slice:
    """A candidate's accuracy on some of the rows, 0…1, and how many there are of them."""

    accuracy: float
    rows: int


@dataclass(frozen=True)
class Evidence:
    """What is known of a candidate. None stands for what could not be computed.

    What the fleet's feedback says is the trainer's to tell, since it alone knows what it has trained on; the rest is
    measured by the hub (``cloud_hub.training.measuring``), whoever the trainer is.

    Attributes:
        candidate_error: held-out error of the candidate, ≥ 0.
        current_error: held-out error of the current release on the same feedback, ≥ 0.
        holdout_labels: held-out labels that both were computed from.
        candidate_accuracy: held-out accuracy, exact or under the normal approximation, or None.
        current_accuracy: the same of the current release, or None.
        classes: label → the candidate on the held-out feedback of this class.
        segments: segment → the candidate on the held-out feedback of this segment.
        validation_accuracy: of the candidate on the package's validation set, in 0…1; None where there is no set.
        current_validation_accuracy: of the current release on the same set, for the record.
        validation_classes: label → the candidate on the validation rows of this class, in its worst variant.
        latency_ms: median time of an answer of the candidate on the hub, in the variant where it lost most.
        current_latency_ms: the same of the current release in this variant.
        size_bytes: of all files of the candidate.
        current_size_bytes: of all files of the current release.
    """

    candidate_error: float | None
    current_error: float | None
    holdout_labels: int
    candidate_accuracy: float | None = None
    current_accuracy: float | None = None
    classes: Mapping[str, Slice] = field(default_factory=dict)
    segments: Mapping[str, Slice] = field(default_factory=dict)
    validation_accuracy: float | None = None
    current_validation_accuracy: float | None = None
    validation_classes: Mapping[str, Slice] = field(default_factory=dict)
    latency_ms: float | None = None
    current_latency_ms: float | None = None
    size_bytes: int | None = None
    current_size_bytes: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The gate's answer.

    Attributes:
        passed: whether the candidate may be rolled out.
        summary: one sentence with both figures.
        reasons: why it was refused; empty when it passed.
        improvement: 1 - candidate's error / current release's error, or None when that cannot be said.
    """

    passed: bool
    summary: str
    reasons: tuple[str, ...]
    improvement: float | None


def judge(evidence: Evidence, policy: GatePolicy) -> Verdict:
    """The verdict on a candidate."""
    improvement = _improvement(evidence)
    reasons = tuple(
        filter(
            None,
            (
                _on_feedback(evidence, improvement, policy),
                _on_validation(evidence, policy),
                _on_slices("class", "held-out feedback", evidence.classes, policy.class_floor),
                _on_slices("segment", "held-out feedback", evidence.segments, policy.segment_floor),
                _on_slices("class", "the validation set", evidence.validation_classes, policy.validation_class_floor),
                _on_latency(evidence, policy),
                _on_size(evidence, policy),
            ),
        )
    )
    figures = f"{_error(evidence, improvement)}; {_accuracy(evidence, policy)}"
    verdict = "refused: " + "; ".join(reasons) if reasons else "passed"
    return Verdict(not reasons, f"{verdict} ({figures})", reasons, improvement)


def _improvement(evidence: Evidence) -> float | None:
    candidate, current = evidence.candidate_error, evidence.current_error
    if candidate is None or current is None or not (_is_positive(candidate) and _is_positive(current)) or current == 0:
        return None
    return 1.0 - candidate / current


def _on_feedback(evidence: Evidence, improvement: float | None, policy: GatePolicy) -> str:
    if evidence.holdout_labels < MIN_HOLDOUT_LABELS:
        return f"only {evidence.holdout_labels} held-out labels, {MIN_HOLDOUT_LABELS} are needed to compare"
    if improvement is None:
        return "the held-out errors cannot be compared"
    if improvement <= 0:
        return "it is not better than the current release on held-out feedback"
    if improvement < policy.min_improvement:
        return f"it is better by {improvement:.1%} only, {policy.min_improvement:.1%} is asked for"
    candidate, current = evidence.candidate_accuracy, evidence.current_accuracy
    # A head can come closer to the labels on the whole and still decide worse: the squared error alone let every ridge
    # head pass that was truly worse by more than 0.02 (docs/decisions/head-choice.md).
    if candidate is not None and current is not None and not candidate > current:
        return f"it decides no better on held-out feedback (accuracy about {candidate:.3f} against {current:.3f})"
    return ""


def _on_validation(evidence: Evidence, policy: GatePolicy) -> str:
    accuracy = evidence.validation_accuracy
    if accuracy is None:
        asked = f"accuracy on the validation set of at least {policy.validation_floor:.3f} is asked for"
        return f"the package has no validation set, and {asked}" if policy.validation_floor > 0 else ""
    if not 0.0 <= accuracy <= 1.0:
        return "its accuracy on the validation set is no number in 0…1"
    if accuracy < policy.validation_floor:
        return f"its accuracy on the validation set is below the floor of {policy.validation_floor:.3f}"
    return ""


def _on_slices(kind: str, where: str, slices: Mapping[str, Slice], floor: float) -> str:
    """Why classes or segments speak against it; those with too few rows to say anything do not."""
    if floor <= 0.0:
        return ""
    judged = {name: found for name, found in slices.items() if found.rows >= MIN_HOLDOUT_LABELS}
    if not judged:
        return f"no {kind} has {MIN_HOLDOUT_LABELS} rows in {where}, and {floor:.3f} is asked of each"
    # `not above` and no `below`: what is not a number is refused.
    below = [f"{name}: {found.accuracy:.3f}" for name, found in judged.items() if not floor <= found.accuracy <= 1.0]
    return f"in {where} it is below the floor of {floor:.3f} for {kind} {_named(below)}" if below else ""


def _on_latency(evidence: Evidence, policy: GatePolicy) -> str:
    took, before, most = evidence.latency_ms, evidence.current_latency_ms, policy.max_latency_ratio
    if most is None:
        return ""
    if took is None or before is None or not (_is_positive(took) and _is_positive(before)):
        return "how long an answer takes could not be measured"
    if took > before * most + LATENCY_NOISE_MS:
        return f"an answer takes {took:.2f} ms against {before:.2f} ms, more than {most:g} times as long"
    return ""


def _on_size(evidence: Evidence, policy: GatePolicy) -> str:
    size, before, most = evidence.size_bytes, evidence.current_size_bytes, policy.max_size_ratio
    if most is None:
        return ""
    if size is None or before is None:
        return "the size of its files is not known"
    if size > before * most:
        return f"its files have {size} bytes against {before}, more than {most:g} times as many"
    return ""


def _named(found: list[str]) -> str:
    more = len(found) - MOST_NAMED
    return ", ".join(found[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _error(evidence: Evidence, improvement: float | None) -> str:
    candidate, current = (
        "unknown" if value is None else f"{value:.4f}" for value in (evidence.candidate_error, evidence.current_error)
    )
    told = f"held-out error {candidate} against {current} on {evidence.holdout_labels} labels"
    if improvement is not None:
        told += f", {improvement:.1%} lower" if improvement >= 0 else f", {-improvement:.1%} higher"
    if evidence.candidate_accuracy is not None and evidence.current_accuracy is not None:
        told += f", accuracy about {evidence.candidate_accuracy:.3f} against {evidence.current_accuracy:.3f}"
    return told


def _accuracy(evidence: Evidence, policy: GatePolicy) -> str:
    return "; ".join(_measured(evidence, policy))


def _measured(evidence: Evidence, policy: GatePolicy) -> Iterator[str]:
    if evidence.validation_accuracy is None:
        yield "no validation set"
    else:
        before = evidence.current_validation_accuracy
        was = "" if before is None else f", before {before:.3f}"
        yield f"validation accuracy {evidence.validation_accuracy:.3f}{was}, floor {policy.validation_floor:.3f}"
