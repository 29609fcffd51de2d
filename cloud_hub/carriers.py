"""Which devices and segments carry a drift, and how much one device may weigh in the fleet's.

A device carries a drift when its own stretch has drifted from the profile **and** differs from what the others see
lately, several times in a row. The first alone would name every device when the world changes for all; the second
alone would name whoever has always been a little different.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud_hub.light_rows import Members
from cloud_hub.light_windows import KINDS, Group, Kind
from cloud_hub.policy import DriftPolicy
from edgeloop.insights import Profile, Window
from edgeloop.insights.alarming import Streak, alpha_of
from edgeloop.insights.drift import Comparison, counts_of

Array = npt.NDArray[Any]

#: A device counts for at most as much as this many devices in the middle: in a total that steers, one that sends a
#: hundred times as much as the others is two voices, and a liar cannot move a fleet of twenty by a tenth.
MOST_WEIGHT = 2.0
#: What the others see lately is what they gather now, once it is this share of a stretch; else their last stretch.
ENOUGH_NOW = 0.25


def weights(predictions: Array) -> Array:
    """By what each device's counts are multiplied in a total that steers: float64 [N], 0…1.

    Args:
        predictions: of each device, [N].
    """
    counted = np.sort(predictions[predictions > 0])
    if not len(counted):
        return np.zeros(len(predictions))
    # The lower one of two in the middle: the other may be the liar.
    cap = MOST_WEIGHT * counted[(len(counted) - 1) // 2]
    return np.where(predictions > 0, np.minimum(1.0, cap / np.maximum(predictions, 1)), 0.0)


def share_of_fleet(group: Group) -> float:
    """The share of the year's false alarms that the fleet's own comparisons have; the rest is for who carries it."""
    return 0.5 if any(len(members) > 1 for members in group.values()) else 1.0


def look(group: Group, profile: Profile, reference: Window, policy: DriftPolicy) -> bool:
    """Compare every device and segment that has gathered a stretch; returns whether any was compared.

    Args:
        group: changed in place.
        profile: of the release.
        reference: what is normal: the profile's reference, filled with the release's first windows.
        policy: of the channel.
    """
    kinds = [kind for kind in KINDS if len(group[kind]) > 1]
    found = False
    for kind in kinds:
        found |= _look(group[kind], profile, reference, policy, share=(1 - share_of_fleet(group)) / len(kinds))
    return found


def named(group: Group, kind: Kind) -> list[str]:
    """Those that carry a drift, by name."""
    members = group[kind]
    return sorted(name for name, state in zip(members.names, members.states, strict=True) if state.carries)


def moved(group: Group, kind: Kind) -> tuple[list[dict[str, Any]], float]:
    """The aspects that moved in those that carry a drift, each as in the one where it moved most; and the p-value."""
    worst: dict[str, dict[str, Any]] = {}
    p_value = 1.0
    for state in group[kind].states:
        if state.carries:
            p_value = min(p_value, state.p_value)
            for aspect in state.moved:
                if aspect["effect"] > worst.get(aspect["name"], {"effect": -1.0})["effect"]:
                    worst[aspect["name"]] = aspect
    return sorted(worst.values(), key=lambda aspect: -aspect["effect"]), p_value


def bounded(group: Group, without: Sequence[str] = ()) -> Array | None:
    """What the devices have sent since the fleet was compared last, none of them with too much weight.

    Args:
        group: of a release on a channel.
        without: devices that are left out.

    Returns:
        int64 [L] as the group's layout has it; None when no device has too much weight and none is left out: then
        the exact total says the same.
    """
    members = group["device"]
    weight = weights(members.layout.predictions(members.lately))
    weight[[name in set(without) for name in members.names]] = 0.0
    if not without and (weight[weight > 0] == 1.0).all():
        return None
    return np.asarray(np.rint(weight @ members.lately).astype(np.int64))


def _look(members: Members, profile: Profile, reference: Window, policy: DriftPolicy, *, share: float) -> bool:
    layout, states = members.layout, members.states
    gathered = layout.predictions(members.now)
    seconds = np.array([state.until - state.since for state in states])
    due = np.flatnonzero((gathered >= policy.min_predictions) & (seconds >= 0.5 * policy.interval_s))
    if not len(due):
        return False
    alpha = _alpha(seconds[due], policy, share) / len(members)
    mine = members.now[due].astype(np.int64)
    settings: dict[str, Any] = {"min_effect": policy.min_effect, "input_names": profile.input_names}
    windows = layout.counts(mine)
    normal = {name: array for name, array in counts_of(reference, layout.starts).items() if name in windows}
    from_profile = Comparison(windows, normal, alpha=alpha, **settings)
    others, least = _others(members, due, policy)
    from_others = Comparison(windows, layout.counts(least), against=layout.counts(others), alpha=alpha, **settings)
    both = from_profile.drifted & from_others.drifted
    for place, (row, carries) in enumerate(zip(due, both, strict=True)):
        state = states[row]
        state.streak = state.streak.next(state.since, state.until, bool(carries))
        if carries:
            report = from_profile.report(place)
            state.moved = [{"against": "profile", **vars(aspect)} for aspect in report.moved]
            state.p_value = min(1.0, report.p_value * len(members))
        state.carries = state.streak.raises(policy.consecutive) or (state.carries and not state.streak.clears())
        state.since = state.until
        members.changed.add(members.names[row])
    members.last[due] = members.now[due]
    members.now[due] = 0
    return True


def _alpha(seconds: Array, policy: DriftPolicy, share: float) -> Array:
    per_year = None if policy.false_alarms_per_year is None else share * policy.false_alarms_per_year
    rule = partial(alpha_of, alarms_per_year=per_year, consecutive=policy.consecutive, at_most=share * policy.alpha)
    return np.array([rule(float(one)) for one in seconds])


def _others(members: Members, due: Array, policy: DriftPolicy) -> tuple[Array, Array]:
    """What all others have seen lately, for each that is due [D, L]; and as much as the least of them, of all [L]."""
    layout = members.layout
    is_now = layout.predictions(members.now) >= ENOUGH_NOW * policy.min_predictions
    recent = np.where(is_now[:, None], members.now, members.last).astype(np.int64)
    size = layout.predictions(recent)
    weight = weights(size)
    total = weight @ recent
    others = np.maximum(total - weight[due, None] * recent[due], 0.0)
    shares = layout.predictions(others) / max(float(layout.predictions(total)), 1.0)
    return others, np.rint(total * float(shares.min())).astype(np.int64)


def first(group: Group) -> Streak:
    """The streak that began first, of those that carry a drift."""
    streaks = [state.streak for members in group.values() for state in members.states if state.carries]
    return min(streaks, key=lambda streak: math.inf if streak.since is None else streak.since, default=Streak())


def restarted(group: Mapping[Kind, Members]) -> None:
    """The fleet's stretch was compared: what comes from now on is of the next one."""
    for members in group.values():
        members.lately[:] = 0
