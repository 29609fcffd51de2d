"""Which step of a rollout is next? A pure function of records, reports and a given time.

Rules, in the order in which they are looked at:

1. A release that devices refuse goes back: more than ``max_failure_share`` of the selected devices rolled it back.
2. A release that fails its requests goes back: its error rate is above the current release's, beyond chance.
3. What cannot be evaluated is not good: it is waited for, and the time limit of the step ends the wait. (A step that
   stops being done, as when another device comes online, has its whole time again.)
4. A step is done when at least one device, and ``min_done_share`` of the selected ones that can answer, really run
   the candidate. Where all have ended and too few run it, the rollout goes back.
5. A step that is done is watched for ``bake_s`` without a break; then the fraction grows to the next step's.
6. The last step that is done and baked makes the candidate current.

An offline device is not a bad model: it is neither a failure nor waited for. A device that fell silent **while** it
was trying the candidate is waited for, since that may be the candidate's doing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cloud_hub.policy import RolloutPolicy, Step

#: Where the update machine of a device (DESIGN 4) has ended, one way or the other.
COMMITTED, ROLLED_BACK, IDLE = "committed", "rolled_back", "idle"
_ENDED = frozenset({COMMITTED, ROLLED_BACK, IDLE})

#: An error rate below this never stops a rollout by itself: 1 request in 200.
ERROR_FLOOR = 0.005
#: Standard deviations by which the candidate's errors must exceed what the current release's rate predicts.
ERROR_SIGMAS = 3.0
#: Requests of the candidate before its error rate says anything.
ERROR_MIN_REQUESTS = 20


@dataclass(frozen=True)
class DeviceView:
    """A device of the channel as the rules see it.

    Attributes:
        name: its name.
        position: its place in this rollout, in [0, 1); below the fraction it takes the candidate.
        online: whether it is connected and was heard of lately.
        release: digest of its committed release, or None.
        update_state: state of its update machine, or None; one that is not known counts as under way.
        update_release: digest that the state is about, or None.
        update_rollout: id of the rollout that offered that release, or None.
        reason: why it is in that state.
    """

    name: str
    position: float
    online: bool
    release: str | None = None
    update_state: str | None = None
    update_release: str | None = None
    update_rollout: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Requests:
    """What a release has answered since the rollout began: good ones, and failed or non-finite ones."""

    predictions: int
    errors: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.predictions + self.errors


@dataclass(frozen=True)
class RolloutState:
    """A rollout's record, as far as the rules need it.

    Attributes:
        id: the rollout's id.
        candidate: digest of the release that is rolled out.
        step: index of the present step; -1 before the first.
        fraction: devices placed below it have been offered the candidate.
        step_started: unix seconds when the present step began, or when it last stopped being done.
        done_since: unix seconds since which the step has been done without a break, or None.
    """

    id: str
    candidate: str
    step: int
    fraction: float
    step_started: float
    done_since: float | None


@dataclass(frozen=True)
class Progress:
    """Where the selected devices stand; every one of them is counted once in done, failed, pending or away."""

    selected: int = 0
    done: int = 0
    failed: int = 0
    pending: int = 0
    away: int = 0

    @property
    def answering(self) -> int:
        """Selected devices that have answered, or are expected to."""
        return self.done + self.failed + self.pending


@dataclass(frozen=True)
class Widen:
    """Begin the step ``step``: offer the candidate to devices placed below ``fraction``."""

    step: int
    fraction: float
    reason: str
    kind: Literal["widen"] = "widen"


@dataclass(frozen=True)
class Wait:
    """Change nothing yet. ``why`` names the kind of wait; ``done_since`` is to be remembered."""

    why: Literal["devices", "evidence", "bake", "approvals"]
    reason: str
    done_since: float | None = None
    kind: Literal["wait"] = "wait"


@dataclass(frozen=True)
class Finish:
    """The candidate becomes the channel's current release."""

    reason: str
    kind: Literal["finish"] = "finish"


@dataclass(frozen=True)
class Abort:
    """The rollout ends; every device goes back to the current release."""

    reason: str
    kind: Literal["abort"] = "abort"


Decision = Widen | Wait | Finish | Abort


def decide(
    state: RolloutState,
    policy: RolloutPolicy,
    devices: Sequence[DeviceView],
    now: float,
    *,
    candidate: Requests | None,
    current: Requests | None,
) -> Decision:
    """The next step of a rollout.

    Args:
        state: the rollout's record.
        policy: its steps and limits, as they were when it began.
        devices: every known device that follows the channel and is free to take the candidate.
        now: unix seconds.
        candidate: what the candidate has answered since the rollout began, or None when that cannot be read.
        current: the same for the current release.

    Returns:
        What to do now; the same arguments give the same decision.
    """
    selected = [device for device in devices if device.position < state.fraction]
    progress = count(state, selected)
    if bad := too_many_failures(state, progress, selected, policy) or too_many_errors(candidate, current):
        return Abort(bad)
    if state.step < 0:
        return _widen(state, policy, devices) or _wait_or_abort(
            state, policy, now, Wait("devices", "no device of the channel is online")
        )
    if candidate is None or current is None:
        reason = "the windows of the candidate, or of the current release, cannot be read"
        return _wait_or_abort(state, policy, now, Wait("evidence", reason))
    if not step_is_done(progress, policy):
        if progress.failed and not progress.pending:
            return Abort(f"all have ended, and only {_share(progress.done, progress.answering)} devices run it")
        return _wait_or_abort(state, policy, now, Wait("devices", _missing(progress, policy)))
    return _bake(state, policy, devices, now, progress)


def count(state: RolloutState, selected: Sequence[DeviceView]) -> Progress:
    """Where the selected devices stand."""
    kinds = Counter(_standing(state, device) for device in selected)
    return Progress(len(selected), kinds["done"], kinds["failed"], kinds["pending"], kinds["away"])


def _standing(state: RolloutState, device: DeviceView) -> str:
    tried = device.update_rollout == state.id and device.update_release == state.candidate
    if tried and device.update_state == ROLLED_BACK:
        return "failed"
    if device.release == state.candidate:
        return "done" if device.online else "away"
    trying = tried and device.update_state not in _ENDED
    return "pending" if device.online or trying else "away"


def too_many_failures(
    state: RolloutState, progress: Progress, selected: Sequence[DeviceView], policy: RolloutPolicy
) -> str:
    """Why the rollout has to go back, or "": the devices' own verdicts."""
    if not progress.failed or progress.failed <= policy.max_failure_share * progress.answering:
        return ""
    reasons = Counter(device.reason or "no reason given" for device in selected if _standing(state, device) == "failed")
    often = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
    most = "; ".join(f"{reason} ({number} ×)" if number > 1 else reason for reason, number in often)
    return f"{_share(progress.failed, progress.answering)} devices went back: {most}"


def too_many_errors(candidate: Requests | None, current: Requests | None) -> str:
    """Why the rollout has to go back, or "": the candidate's errors against what the current release's rate predicts.

    The current release's rate is estimated with one error added (Laplace), so that a short clean record is no proof;
    the candidate's count is compared with that rate's mean and `ERROR_SIGMAS` standard deviations of the binomial.
    """
    if candidate is None or current is None or candidate.total < ERROR_MIN_REQUESTS:
        return ""
    usual = max(ERROR_FLOOR, (current.errors + 1) / (current.total + 2) if current.total else 0.0)
    usual = min(usual, 1.0)
    limit = candidate.total * usual + ERROR_SIGMAS * math.sqrt(candidate.total * usual * (1 - usual))
    if candidate.errors <= limit:
        return ""
    return (
        f"{_share(candidate.errors, candidate.total)} requests to the candidate failed; "
        f"to the current release it was {_share(current.errors, current.total)}"
    )


def step_is_done(progress: Progress, policy: RolloutPolicy) -> bool:
    """Whether enough of the devices that can answer really run the candidate."""
    return progress.done >= 1 and progress.done >= policy.min_done_share * progress.answering


def fraction_for(step: Step, devices: Sequence[DeviceView], least: float = 0.0) -> float | None:
    """The fraction under which exactly the step's number of online devices is placed.

    Args:
        step: a number of devices, or a share of those that are online (rounded up; all of them is 1.0).
        devices: every known device.
        least: the fraction never becomes smaller than this.

    Returns:
        The fraction, or None when no device is online: nobody could show whether the candidate is good.
    """
    online = sorted(device.position for device in devices if device.online)
    if not online:
        return None
    if step.share == 1.0:
        return 1.0
    # ceil of a product such as 0.1 × 30 must not become 4 through the last bit.
    wanted = step.devices if step.devices is not None else math.ceil((step.share or 0.0) * len(online) - 1e-9)
    last = online[min(max(wanted, 1), len(online)) - 1]
    above = min((device.position for device in devices if device.position > last), default=1.0)
    middle = (last + above) / 2
    return max(least, middle if last < middle else math.nextafter(last, 1.0))


def _widen(state: RolloutState, policy: RolloutPolicy, devices: Sequence[DeviceView]) -> Widen | None:
    """The next step that reaches a device more, or the last one; in a small fleet several steps are the same."""
    for step in range(state.step + 1, len(policy.steps)):
        fraction = fraction_for(policy.steps[step], devices, least=state.fraction)
        if fraction is None:
            return None
        online = [device.position for device in devices if device.online]
        takes = sum(position < fraction for position in online)
        if takes > sum(position < state.fraction for position in online) or step == len(policy.steps) - 1:
            text = f"step {step + 1} of {len(policy.steps)}: {takes} of {len(online)} online devices"
            return Widen(step, fraction, text)
    return None


def _bake(
    state: RolloutState, policy: RolloutPolicy, devices: Sequence[DeviceView], now: float, progress: Progress
) -> Decision:
    since = now if state.done_since is None else min(state.done_since, now)
    done = f"{_share(progress.done, progress.answering)} devices run it"
    if now - since < policy.bake_s:
        return Wait("bake", f"{done}; watched for {policy.bake_s:g} s", done_since=since)
    if state.step + 1 >= len(policy.steps):
        return Finish(f"{done}, watched for {policy.bake_s:g} s")
    return _widen(state, policy, devices) or Wait("devices", "no device of the channel is online", done_since=since)


def _wait_or_abort(state: RolloutState, policy: RolloutPolicy, now: float, wait: Wait) -> Decision:
    """Wait, but not for ever. A step that was done until now has its time again: a device may have come online."""
    if state.done_since is None and now - state.step_started > policy.timeout_s:
        return Abort(f"step {state.step + 1} took longer than {policy.timeout_s:g} s: {wait.reason}")
    return wait


def _missing(progress: Progress, policy: RolloutPolicy) -> str:
    text = f"{_share(progress.done, progress.answering)} devices run it, {policy.min_done_share:.0%} have to"
    return text + (f"; {progress.away} are offline" if progress.away else "")


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}"
