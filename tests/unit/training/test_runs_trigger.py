"""When a training run starts by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from cloud_hub.policy import ChannelPolicy, RetrainingPolicy
from cloud_hub.training.policy import DAY_S, Level, PastRun, Situation, recipe_of, trigger

POLICY = RetrainingPolicy(trigger=("drift",), min_labels=100, cooldown_s=600.0, max_runs_per_day=3)
NOW = 10 * DAY_S
READY = Situation(alarm=7, labels=100)


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
    "cancelled: over": ({"runs": [past(9999, "cancelled")]}, ""),
    "within the cooldown": ({"runs": [past(599)]}, "cooldown"),
    "within the cooldown of a cancelled one": ({"runs": [past(599, "cancelled")]}, "cooldown"),
    "after the cooldown": ({"runs": [past(600)]}, ""),
    "interrupted: no cooldown": ({"runs": [past(1, interrupted=True)]}, ""),
    "too many today": ({"runs": [past(DAY_S - 1), past(5000), past(4000)]}, "3 runs were made"),
    "interrupted ones count for the day": ({"runs": [past(1, interrupted=True)] * 3}, "3 runs were made"),
    "yesterday's do not count": ({"runs": [past(DAY_S + 1), past(5000), past(4000)]}, ""),
    "refused with as many labels": ({"runs": [past(5000, "refused", alarm=7, labels=90)]}, "100 of 113 labels"),
    "refused with fewer labels": ({"runs": [past(5000, "refused", alarm=7, labels=80)]}, ""),
    "refused for another alarm": ({"runs": [past(5000, "refused", alarm=6, labels=90)]}, ""),
    "refused, and made in another way": ({"runs": [past(5000, "refused", alarm=7, labels=90, recipe="b")]}, ""),
    "released, but its rollout went back": ({"runs": [past(5000, "released", alarm=7, labels=100)]}, "100 of 125"),
    "failed: the same labels may do": ({"runs": [past(5000, "failed", alarm=7, labels=100)]}, ""),
}


@pytest.mark.parametrize("name", CASES)
def test_the_table(name: str) -> None:
    changes, reason = CASES[name]
    found = trigger(POLICY, NOW, replace(READY, **changes))
    assert found.start is (reason == ""), found
    assert reason in found.reason and found.reason


def known(value: float, high: float, source: str = "audits", rows: int = 500) -> Level:
    return Level(value, high, source, rows)


DUE: dict[str, tuple[dict[str, Any], dict[str, Any], bool, str]] = {
    "accuracy is surely below": (
        {"trigger": "accuracy", "min_accuracy": 0.8},
        {"accuracy": known(0.7, 0.75)},
        True,
        "accuracy 0.700 by audits of 500 answers, at most 0.750: below 0.8",
    ),
    "accuracy may be chance": (
        {"trigger": "accuracy", "min_accuracy": 0.8},
        {"accuracy": known(0.78, 0.81)},
        False,
        "not surely below 0.8",
    ),
    "accuracy is not known": ({"trigger": "accuracy", "min_accuracy": 0.8}, {}, False, "is not known"),
    "enough new labels": (
        {"trigger": "labels", "labels_each": 50},
        {"new_labels": 50},
        True,
        "50 labels since the last run",
    ),
    "too few new labels": (
        {"trigger": "labels", "labels_each": 50},
        {"new_labels": 49},
        False,
        "49 of 50 labels since the last run",
    ),
    "much is escalated": (
        {"trigger": "escalation", "max_escalated": 0.2},
        {"escalated": known(0.2, 0.25, rows=100)},
        True,
        "20.0% of 100 answers were escalated",
    ),
    "little is escalated": (
        {"trigger": "escalation", "max_escalated": 0.2},
        {"escalated": known(0.19, 0.25)},
        False,
        "the limit is 20.0%",
    ),
    "too few answers to say": (
        {"trigger": "escalation", "max_escalated": 0.2},
        {"escalated": known(0.9, 1.0, rows=99)},
        False,
        "99 answers of late are too few",
    ),
    "nothing was answered": ({"trigger": "escalation"}, {}, False, "0 answers of late"),
    "the day's time has passed": (
        {"trigger": "schedule", "offset_s": 3600.0},
        {"made": NOW - DAY_S / 2, "at": NOW + 3600.0},
        True,
        "the timetable",
    ),
    "the day's time comes": (
        {"trigger": "schedule", "offset_s": 3600.0},
        {"made": NOW - DAY_S / 2, "at": NOW + 3000.0},
        False,
        "the timetable's next run is in 600 s",
    ),
    "the day's run was made": (
        {"trigger": "schedule", "offset_s": 3600.0},
        {"made": 0.0, "runs": [past(-3601.0)], "at": NOW + 7200.0},
        False,
        "next run is in 82800 s",
    ),
    "the day's run was interrupted": (
        {"trigger": "schedule", "offset_s": 3600.0},
        {"made": 0.0, "runs": [past(-3601.0, interrupted=True)], "at": NOW + 7200.0},
        True,
        "the timetable",
    ),
    "the first that is due gives the reason": (
        {"trigger": ("drift", "labels"), "labels_each": 50},
        {"alarm": None, "new_labels": 60},
        True,
        "60 labels since",
    ),
    "none of several is due: all say what they wait for": (
        {"trigger": ("drift", "labels"), "labels_each": 50},
        {"alarm": None, "new_labels": 4},
        False,
        "no drift alarm is open on the current release; 4 of 50 labels since the last run",
    ),
}


@pytest.mark.parametrize("name", DUE)
def test_each_trigger(name: str) -> None:
    policy, changes, start, reason = DUE[name]
    at = changes.get("at", NOW)
    situation = replace(Situation(labels=1000), **{key: value for key, value in changes.items() if key != "at"})
    found = trigger(RetrainingPolicy(cooldown_s=0.0, **policy), at, situation)
    assert found.start is start, found
    assert reason in found.reason
    assert (found.cause is not None) is start


def test_by_hand_never_starts_by_itself() -> None:
    for manual in ("manual", [], ["manual"]):
        policy = RetrainingPolicy.model_validate({"trigger": manual})
        assert policy.trigger == () and not trigger(policy, NOW, READY).start


@pytest.mark.parametrize("wrong", ["moon", ["drift", "moon"], ["manual", "drift"], 3, None, "accuracy"])
def test_what_is_no_trigger(wrong: object) -> None:
    with pytest.raises(ValidationError):
        RetrainingPolicy.model_validate({"trigger": wrong})


def test_a_recipe_is_how_a_candidate_is_made_and_judged_not_when() -> None:
    first = recipe_of(ChannelPolicy(), "sha256:a")

    def changed(part: str, **values: Any) -> str:
        return recipe_of(ChannelPolicy.model_validate({part: values}), "sha256:a")

    assert changed("retraining", trigger="drift", min_labels=7, cooldown_s=1.0) == first
    assert changed("rollout", bake_s=1.0) == first
    assert recipe_of(ChannelPolicy(), "sha256:b") != first
    assert changed("retraining", statistics="all") != first
    assert changed("gate", validation_floor=0.5) != first


def test_every_field_of_the_policy_says_either_when_or_how() -> None:
    assert set(RetrainingPolicy.model_fields) >= RetrainingPolicy.WHEN
