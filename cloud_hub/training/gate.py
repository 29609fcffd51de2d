"""May a candidate be rolled out? A pure function of the evidence and the channel's policy; it fails closed.

Two figures decide, and the verdict names both:

- The **held-out error**: mean squared error on the held-out quarter of the fleet's feedback, exact, computed from sums
  (``cloud_hub.training.head.holdout_error``). The candidate's must be lower than the current release's, by at least
  ``min_improvement`` of it, and its approximate accuracy on the same feedback must be higher. This is the new world.
- The **accuracy on the package's validation set**, of the worst variant. It must not be below ``validation_floor``.
  This is the old world: a fleet that has moved for good sets the floor to 0, one that sees both worlds does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cloud_hub.policy import GatePolicy

#: With fewer held-out labels the comparison of two errors says nothing.
MIN_HOLDOUT_LABELS = 10


@dataclass(frozen=True)
class Evidence:
    """What is known of a candidate. None stands for what could not be computed.

    Attributes:
        candidate_error: held-out error of the candidate, ≥ 0.
        current_error: held-out error of the current release on the same feedback, ≥ 0.
        holdout_labels: held-out labels that both were computed from.
        validation_accuracy: of the candidate on the package's validation set, in 0…1; None where there is no set.
        current_validation_accuracy: of the current release on the same set, for the record.
        candidate_accuracy: held-out accuracy under the normal approximation, or None.
        current_accuracy: the same of the current release, or None.
    """

    candidate_error: float | None
    current_error: float | None
    holdout_labels: int
    validation_accuracy: float | None
    current_validation_accuracy: float | None = None
    candidate_accuracy: float | None = None
    current_accuracy: float | None = None


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
    reasons = tuple(filter(None, (_on_feedback(evidence, improvement, policy), _on_validation(evidence, policy))))
    figures = f"{_error(evidence, improvement)}; {_accuracy(evidence, policy)}"
    verdict = "refused: " + "; ".join(reasons) if reasons else "passed"
    return Verdict(not reasons, f"{verdict} ({figures})", reasons, improvement)


def _improvement(evidence: Evidence) -> float | None:
    candidate, current = evidence.candidate_error, evidence.current_error
    if candidate is None or current is None or not (_is_error(candidate) and _is_error(current)) or current == 0:
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


def _is_error(value: float) -> bool:
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
    if evidence.validation_accuracy is None:
        return "no validation set"
    before = evidence.current_validation_accuracy
    was = "" if before is None else f", before {before:.3f}"
    return f"validation accuracy {evidence.validation_accuracy:.3f}{was}, floor {policy.validation_floor:.3f}"
