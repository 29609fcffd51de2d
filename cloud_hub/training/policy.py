"""When does a training run start by itself? A pure function of the channel's policy, its records and a given time.

Rules, in order:

1. The policy's trigger is ``drift``, and an alarm is open on the channel's current release.
2. Nothing is under way: no run, no rollout (a candidate could not be rolled out).
3. Enough labels have arrived since the alarm.
4. The last run of this alarm that came to a verdict had fewer labels, by a quarter: the same statistics would come to
   the same verdict again.
5. The cooldown since the last run is over. A run that the hub's own stop interrupted needs no cooldown.
6. Fewer runs than the policy allows were made in the last 24 hours, interrupted ones included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloud_hub.policy import RetrainingPolicy

DAY_S = 86_400.0
#: A verdict is asked for again when labels have grown by this factor: the error of an estimate falls with the square
#: root of the count, so a quarter more is the least that could change one.
LABEL_GROWTH = 1.25

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
    """

    state: str
    created: float
    alarm: int | None = None
    labels: int = 0
    interrupted: bool = False


@dataclass(frozen=True)
class Trigger:
    """Whether a run starts now, and why, or why not."""

    start: bool
    reason: str


def trigger(
    policy: RetrainingPolicy,
    now: float,
    *,
    alarm: int | None,
    labels: int,
    runs: Sequence[PastRun],
    rolling_out: bool,
) -> Trigger:
    """Whether a run starts now.

    Args:
        policy: the channel's.
        now: unix seconds.
        alarm: id of the open alarm on the channel's current release, or None.
        labels: labels since that alarm.
        runs: the channel's runs, in any order.
        rolling_out: whether a rollout is under way on the channel.
    """
    against = next(_against(policy, now, alarm, labels, runs, rolling_out), None)
    return Trigger(True, f"drift alarm {alarm}, {labels} labels since") if against is None else Trigger(False, against)


def _against(
    policy: RetrainingPolicy, now: float, alarm: int | None, labels: int, runs: Sequence[PastRun], rolling_out: bool
) -> Iterator[str]:
    """What speaks against a run, in the order of the rules."""
    if policy.trigger != "drift":
        yield "retraining is started by hand on this channel"
    if alarm is None:
        yield "no drift alarm is open on the current release"
    if any(run.state in ACTIVE for run in runs):
        yield "a run is under way"
    if rolling_out:
        yield "a rollout is under way"
    needed = max(policy.min_labels, _labels_for_another_verdict(alarm, runs))
    if labels < needed:
        yield f"{labels} of {needed} labels have arrived"
    if any(0 <= now - run.created < policy.cooldown_s for run in runs if not run.interrupted):
        yield f"the cooldown of {policy.cooldown_s:g} s since the last run is not over"
    if sum(0 <= now - run.created < DAY_S for run in runs) >= policy.max_runs_per_day:
        yield f"{policy.max_runs_per_day} runs were made in the last 24 hours, which is the limit"


def _labels_for_another_verdict(alarm: int | None, runs: Sequence[PastRun]) -> int:
    decided = [run.labels for run in runs if run.alarm == alarm and run.state in DECIDED]
    return math.ceil(max(decided) * LABEL_GROWTH) if decided else 0
