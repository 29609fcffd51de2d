"""The gate: both figures decide, both are named, and what is missing or absurd is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.policy import GatePolicy
from cloud_hub.training.gate import MIN_HOLDOUT_LABELS, Evidence, Slice, judge

GOOD: dict[str, Any] = {
    "candidate_error": 0.02,
    "current_error": 0.06,
    "holdout_labels": 150,
    "validation_accuracy": 0.85,
    "latency_ms": 1.0,
    "current_latency_ms": 1.0,
    "size_bytes": 100,
    "current_size_bytes": 100,
}
POLICY = GatePolicy(validation_floor=0.8, min_improvement=0.1)
STRICT = GatePolicy(class_floor=0.5)
BY_SEGMENT = GatePolicy(segment_floor=0.6)
OLD_CLASSES = GatePolicy(validation_class_floor=0.7)

CASES: dict[str, tuple[dict[str, Any], GatePolicy, str]] = {
    "better and above the floor": ({}, POLICY, ""),
    "exactly at the floor": ({"validation_accuracy": 0.8}, POLICY, ""),
    "below the floor": ({"validation_accuracy": 0.799}, POLICY, "below the floor of 0.800"),
    "the old world may be forgotten": ({"validation_accuracy": 0.1}, GatePolicy(validation_floor=0), ""),
    "no validation set, none asked for": ({"validation_accuracy": None}, GatePolicy(validation_floor=0), ""),
    "no validation set, a floor": ({"validation_accuracy": None}, POLICY, "no validation set"),
    "not better": ({"candidate_error": 0.06}, POLICY, "not better"),
    "not better, any improvement would do": ({"candidate_error": 0.06}, GatePolicy(validation_floor=0), "not better"),
    "worse": ({"candidate_error": 0.07}, POLICY, "not better"),
    "too little better": ({"candidate_error": 0.055}, POLICY, "better by 8.3% only"),
    "too few held-out labels": ({"holdout_labels": MIN_HOLDOUT_LABELS - 1}, POLICY, "held-out labels"),
    "no error for the candidate": ({"candidate_error": None}, POLICY, "cannot be compared"),
    "no error for the current release": ({"current_error": None}, POLICY, "cannot be compared"),
    "the current release makes no error": ({"current_error": 0.0}, POLICY, "cannot be compared"),
    "an error that is not a number": ({"candidate_error": math.nan}, POLICY, "cannot be compared"),
    "a negative error": ({"candidate_error": -1.0}, POLICY, "cannot be compared"),
    "an infinite error": ({"current_error": math.inf}, POLICY, "cannot be compared"),
    "an accuracy that is not a number": ({"validation_accuracy": math.nan}, POLICY, "no number in 0…1"),
    "an accuracy above one": ({"validation_accuracy": 1.5}, POLICY, "no number in 0…1"),
    "twice as slow": ({"latency_ms": 2.1}, POLICY, "an answer takes 2.10 ms against 1.00 ms"),
    "twice as slow, which is noise": ({"latency_ms": 0.4, "current_latency_ms": 0.1}, POLICY, ""),
    "twice as slow, which is allowed": ({"latency_ms": 2.1}, GatePolicy(max_latency_ratio=None), ""),
    "nobody has measured how slow": ({"latency_ms": None}, POLICY, "could not be measured"),
    "a time that is not a number": ({"latency_ms": math.nan}, POLICY, "could not be measured"),
    "twice as large": ({"size_bytes": 200}, POLICY, "200 bytes against 100"),
    "twice as large, which is allowed": ({"size_bytes": 200}, GatePolicy(max_size_ratio=2.0), ""),
    "nobody knows how large": ({"size_bytes": None}, POLICY, "size of its files is not known"),
    "a class below its floor": (
        {"classes": {"seven": Slice(0.4, 20), "one": Slice(0.9, 20)}},
        STRICT,
        "class seven: 0.400",
    ),
    "a class above its floor": ({"classes": {"seven": Slice(0.5, 20)}}, STRICT, ""),
    "a class with too few rows": ({"classes": {"seven": Slice(0.1, 9), "one": Slice(0.9, 20)}}, STRICT, ""),
    "no class with enough rows": ({"classes": {"seven": Slice(0.9, 9)}}, STRICT, "no class has 10 rows"),
    "a class of which nothing is known": ({"classes": {"seven": Slice(math.nan, 20)}}, STRICT, "class seven: nan"),
    "no class floor": ({"classes": {"seven": Slice(0.0, 20)}}, POLICY, ""),
    "a segment below its floor": ({"segments": {"night": Slice(0.59, 30)}}, BY_SEGMENT, "segment night: 0.590"),
    "no segment is known, and each is asked for": ({}, BY_SEGMENT, "no segment has 10 rows"),
    "a class of the old world below its floor": (
        {"validation_classes": {"seven": Slice(0.69, 30)}},
        OLD_CLASSES,
        "in the validation set it is below the floor of 0.700 for class seven: 0.690",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_table(name: str) -> None:
    changes, policy, reason = CASES[name]
    verdict = judge(Evidence(**(GOOD | changes)), policy)
    assert verdict.passed is (reason == "")
    assert bool(verdict.reasons) is not verdict.passed
    if reason:
        assert any(reason in found for found in verdict.reasons), verdict.reasons
        assert verdict.summary.startswith("refused: ")


def test_the_verdict_names_both_figures() -> None:
    verdict = judge(
        Evidence(**GOOD, current_validation_accuracy=0.96, candidate_accuracy=0.84, current_accuracy=0.47), POLICY
    )
    assert verdict.summary == (
        "passed (held-out error 0.0200 against 0.0600 on 150 labels, 66.7% lower, accuracy about 0.840 against 0.470; "
        "validation accuracy 0.850, before 0.960, floor 0.800)"
    )
    assert verdict.improvement == pytest.approx(2 / 3)


def test_every_reason_is_given_at_once() -> None:
    verdict = judge(Evidence(0.07, 0.06, 150, validation_accuracy=0.1), POLICY)
    assert len(verdict.reasons) == 4, "worse, below the floor, and neither its time nor its size is known"


numbers = st.none() | st.floats()


@given(numbers, numbers, st.integers(0, 1000), numbers, st.floats(0, 1), st.floats(0, 0.99))
def test_nothing_passes_without_proof(
    candidate: float | None, current: float | None, labels: int, accuracy: float | None, floor: float, least: float
) -> None:
    verdict = judge(
        Evidence(
            **(GOOD | {"candidate_error": candidate, "current_error": current, "holdout_labels": labels})
            | {"validation_accuracy": accuracy}
        ),
        GatePolicy(validation_floor=floor, min_improvement=least),
    )
    assert verdict.summary
    if verdict.passed:
        assert candidate is not None and current is not None
        assert 0 <= candidate < current < math.inf
        assert labels >= MIN_HOLDOUT_LABELS
        assert floor == 0 if accuracy is None else floor <= accuracy <= 1


def test_closer_to_the_labels_but_deciding_worse_is_refused() -> None:
    evidence = Evidence(**GOOD, candidate_accuracy=0.47, current_accuracy=0.47)
    verdict = judge(evidence, POLICY)
    assert not verdict.passed
    assert "decides no better" in verdict.reasons[0]
