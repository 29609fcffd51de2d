"""When does a training run start by itself? A pure function of the channel's policy, its records and a given time.

Each of the policy's triggers is due or says what it waits for:

- ``drift``: an alarm of the whole fleet is open on the channel's current release.
- ``accuracy``: the accuracy of late is below ``min_accuracy``, and so is the upper end of its interval: chance is not
  enough.
- ``labels``: so many labels have come since the last run that came to a verdict.
- ``escalation``: so large a share of the answers of late was escalated.
- ``schedule``: a time of the timetable has passed since the last run, or since the release was made.

A run that is due starts unless something of this speaks against it, in order:

1. Something is under way: a run, or a rollout (a candidate could not be rolled out).
2. Too few labels are at hand; or the last run of this kind (the same recipe, the same alarm) that came to a verdict
   had not fewer by a quarter: the same statistics would come to the same verdict again.
3. The cooldown since the last run is not over. A run that the hub's own stop interrupted needs no cooldown.
4. As many runs as the policy allows were made in the last 24 hours, interrupted ones included.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloud_hub.policy import Cause, ChannelPolicy, RetrainingPolicy

DAY_S = 86_400.0
#: A verdict is asked for again when labels have grown by this factor: the error of an estimate falls with the square
#: root of the count, so a quarter more is the least that could change one.
LABEL_GROWTH = 1.25
#: A share of fewer answers says little: its 95 % interval is wider than ±0.1.
FEWEST_ANSWERS = 100

ACTIVE = frozenset({"queued", "training", "evaluating"})
DECIDED = frozenset({"refused", "released"})


@dataclass(frozen=True)
class PastRun:
    """A run of the channel as the rule sees it.

    Attributes:
        state: see ``cloud_hub.training.run_records``.
        created: unix seconds.
        alarm: id of the alarm that it answered, or None.
        labels: labels that it was made of.
        interrupted: whether the hub was stopped during it.
        recipe: see :func:`recipe_of`.
    """

    state: str
    created: float
    alarm: int | None = None
    labels: int = 0
    interrupted: bool = False
    recipe: str = ""


@dataclass(frozen=True)
class Level:
    """A share of late, in 0…1: what it is, what it surely does not exceed, how it is known and from how many rows."""

    value: float
    high: float
    source: str
    rows: int


@dataclass(frozen=True)
class Situation:
    """A channel as the rule sees it; what no trigger of its policy asks for is left out.

    Attributes:
        alarm: id of the open alarm of the fleet on the current release, or None.
        labels: labels that a run would have now.
        new_labels: labels since the last run that came to a verdict.
        accuracy: of the current release, of late; None where nothing can be said.
        escalated: share of its answers of late that were escalated; None where none were given.
        made: unix seconds when the current release was made.
        runs: the channel's runs, in any order.
        rolling_out: whether a rollout is under way on the channel.
        recipe: of a run that would start now; see :func:`recipe_of`.
    """

    alarm: int | None = None
    labels: int = 0
    new_labels: int = 0
    accuracy: Level | None = None
    escalated: Level | None = None
    made: float = 0.0
    runs: Sequence[PastRun] = ()
    rolling_out: bool = False
    recipe: str = ""


@dataclass(frozen=True)
class Trigger:
    """Whether a run starts now, and why, or why not; and which of the policy's triggers it is, or None."""

    start: bool
    reason: str
    cause: Cause | None = None


def trigger(policy: RetrainingPolicy, now: float, found: Situation) -> Trigger:
    """Whether a run starts now.

    Args:
        policy: the channel's.
        now: unix seconds.
        found: how the channel is.
    """
    if not policy.trigger:
        return Trigger(False, "retraining is started by hand on this channel")
    answers = [(cause, *_DUE[cause](policy, now, found)) for cause in policy.trigger]
    due = next(((cause, told) for cause, is_due, told in answers if is_due), None)
    if due is None:
        return Trigger(False, "; ".join(told for _, _, told in answers))
    cause, told = due
    if (against := next(_against(policy, now, found), None)) is not None:
        return Trigger(False, against, cause)
    return Trigger(True, told, cause)


def recipe_of(policy: ChannelPolicy, parent: str) -> str:
    """What makes two runs the same but for their data: release, trainer with its settings, gate. 64 hex digits."""
    how = policy.retraining.model_dump(mode="json", exclude=set(RetrainingPolicy.WHEN))
    whole = {"parent": parent, "retraining": how, "gate": policy.gate.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def last_verdict(runs: Sequence[PastRun]) -> PastRun | None:
    """The newest run that came to a verdict."""
    return max((run for run in runs if run.state in DECIDED), key=lambda run: run.created, default=None)


# ── which trigger is due: (whether, why or what it waits for) ─────────────────────────────────────


def _drift(policy: RetrainingPolicy, now: float, found: Situation) -> tuple[bool, str]:
    if found.alarm is None:
        return False, "no drift alarm is open on the current release"
    return True, f"drift alarm {found.alarm}, {found.labels} labels since"


def _accuracy(policy: RetrainingPolicy, now: float, found: Situation) -> tuple[bool, str]:
    least, level = policy.min_accuracy or 0.0, found.accuracy
    if level is None:
        return False, "the accuracy of late is not known"
    told = f"accuracy {level.value:.3f} by {level.source} of {level.rows} answers"
    if level.high >= least:
        return False, f"{told}, at most {level.high:.3f}: not surely below {least:g}"
    return True, f"{told}, at most {level.high:.3f}: below {least:g}"


def _labels(policy: RetrainingPolicy, now: float, found: Situation) -> tuple[bool, str]:
    if found.new_labels < policy.labels_each:
        return False, f"{found.new_labels} of {policy.labels_each} labels since the last run"
    return True, f"{found.new_labels} labels since the last run"


def _escalation(policy: RetrainingPolicy, now: float, found: Situation) -> tuple[bool, str]:
    level = found.escalated
    if level is None or level.rows < FEWEST_ANSWERS:
        return False, f"{0 if level is None else level.rows} answers of late are too few to say what share is escalated"
    told = f"{level.value:.1%} of {level.rows} answers were escalated"
    return level.value >= policy.max_escalated, f"{told}, the limit is {policy.max_escalated:.1%}"


def _schedule(policy: RetrainingPolicy, now: float, found: Situation) -> tuple[bool, str]:
    last = max((run.created for run in found.runs if not run.interrupted), default=0.0)
    turn = math.floor((max(last, found.made) - policy.offset_s) / policy.every_s) + 1
    due = turn * policy.every_s + policy.offset_s
    return now >= due, "the timetable" if now >= due else f"the timetable's next run is in {due - now:.0f} s"


_DUE = {
    "drift": _drift,
    "accuracy": _accuracy,
    "labels": _labels,
    "escalation": _escalation,
    "schedule": _schedule,
}


def _against(policy: RetrainingPolicy, now: float, found: Situation) -> Iterator[str]:
    """What speaks against a run that is due, in the order of the rules."""
    runs = found.runs
    if any(run.state in ACTIVE for run in runs):
        yield "a run is under way"
    if found.rolling_out:
        yield "a rollout is under way"
    needed = max(policy.min_labels, _labels_for_another_verdict(found))
    if found.labels < needed:
        yield f"{found.labels} of {needed} labels have arrived"
    if any(0 <= now - run.created < policy.cooldown_s for run in runs if not run.interrupted):
        yield f"the cooldown of {policy.cooldown_s:g} s since the last run is not over"
    if sum(0 <= now - run.created < DAY_S for run in runs) >= policy.max_runs_per_day:
        yield f"{policy.max_runs_per_day} runs were made in the last 24 hours, which is the limit"


def _labels_for_another_verdict(found: Situation) -> int:
    kind = (found.alarm, found.recipe)
    decided = [run.labels for run in found.runs if (run.alarm, run.recipe) == kind and run.state in DECIDED]
    return math.ceil(max(decided) * LABEL_GROWTH) if decided else 0
