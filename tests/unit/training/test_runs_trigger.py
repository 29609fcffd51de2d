"""When a training run starts by itself."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_hub.policy import RetrainingPolicy
from cloud_hub.training.policy import DAY_S, PastRun, trigger

POLICY = RetrainingPolicy(trigger="drift", min_labels=100, cooldown_s=600.0, max_runs_per_day=3)
NOW = 10 * DAY_S
READY: dict[str, Any] = {"alarm": 7, "labels": 100, "runs": [], "rolling_out": False}


def past(age: float, state: str = "failed", **changes: Any) -> PastRun:
    return PastRun(state, NOW - age, **changes)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "ready": ({}, ""),
    "no alarm": ({"alarm": None}, "no drift alarm"),
    "too few labels": ({"labels": 99}, "99 of 100 labels"),
    "a rollout is under way": ({"rolling_out": True}, "a rollout is under way"),
    "queued": ({"runs": [past(9999, "queued")]}, "a run is under way"),
    "training": ({"runs": [past(9999, "training")]}, "a run is under way"),
    "evaluating": ({"runs": [past(9999, "evaluating")]}, "a run is under way"),
    "within the cooldown": ({"runs": [past(599)]}, "cooldown"),
    "after the cooldown": ({"runs": [past(600)]}, ""),
    "interrupted: no cooldown": ({"runs": [past(1, interrupted=True)]}, ""),
    "too many today": ({"runs": [past(DAY_S - 1), past(5000), past(4000)]}, "3 runs were made"),
    "interrupted ones count for the day": ({"runs": [past(1, interrupted=True)] * 3}, "3 runs were made"),
    "yesterday's do not count": ({"runs": [past(DAY_S + 1), past(5000), past(4000)]}, ""),
    "refused with as many labels": ({"runs": [past(5000, "refused", alarm=7, labels=90)]}, "100 of 113 labels"),
    "refused with fewer labels": ({"runs": [past(5000, "refused", alarm=7, labels=80)]}, ""),
    "refused for another alarm": ({"runs": [past(5000, "refused", alarm=6, labels=90)]}, ""),
    "released, but its rollout went back": ({"runs": [past(5000, "released", alarm=7, labels=100)]}, "100 of 125"),
    "failed: the same labels may do": ({"runs": [past(5000, "failed", alarm=7, labels=100)]}, ""),
}


@pytest.mark.parametrize("name", CASES)
def test_the_table(name: str) -> None:
    changes, reason = CASES[name]
    found = trigger(POLICY, NOW, **(READY | changes))
    assert found.start is (reason == ""), found
    assert reason in found.reason and found.reason


def test_by_hand_never_starts_by_itself() -> None:
    assert not trigger(POLICY.model_copy(update={"trigger": "manual"}), NOW, **READY).start
