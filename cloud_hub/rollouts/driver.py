"""The driver of rollouts: reads records, asks the rules, writes what they decided.

Everything that a decision needs is in the records, so a hub that was killed goes on where it was. The record and the
channel change in one transaction; the channel document is published after it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from cloud_hub.access import audit
from cloud_hub.access.principals import acting
from cloud_hub.channels import ActiveRollout, Channel, Channels
from cloud_hub.devices import Device, Devices
from cloud_hub.errors import BadRequest, Conflict, NotFound
from cloud_hub.insights_store import InsightStore
from cloud_hub.policy import RolloutPolicy, Step
from cloud_hub.records.database import Database
from cloud_hub.releases import Releases
from cloud_hub.rollouts import approvals, records
from cloud_hub.rollouts.approvals import Approval
from cloud_hub.rollouts.records import ABORTED, FINISHED, RUNNING, HistoryEntry, Rollout
from cloud_hub.rollouts.rules import Abort, Decision, DeviceView, Finish, Progress, Requests, Wait, Widen, count, decide
from edgeloop.protocol import position

log = logging.getLogger(__name__)

#: A device that says it is online, but was not heard of for this long, is taken for offline: a broker that was
#: killed cannot tell of its clients. Three times the agent's default report interval of 60 s, and some.
RECENT_S = 300.0


class Rollouts:
    """The rollouts of a hub; at most one a channel is under way.

    Args:
        db: the records.
        channels: shows the rollout to devices.
        releases: to name a release by its digest.
        devices: where the followers stand.
        insights: what the releases have answered.
        clock: unix seconds.
        recent_s: a device that was not heard of for this long counts as offline.
    """

    def __init__(
        self,
        db: Database,
        channels: Channels,
        releases: Releases,
        devices: Devices,
        insights: InsightStore,
        *,
        clock: Callable[[], float] = time.time,
        recent_s: float = RECENT_S,
    ) -> None:
        self._db, self._channels, self._releases = db, channels, releases
        self._devices, self._insights, self._clock, self._recent_s = devices, insights, clock, recent_s

    def start(self, channel: str, digest: str, steps: Sequence[Step] | None = None, reason: str = "by hand") -> str:
        """Start moving a channel to a release and return the rollout's id.

        Args:
            channel: the channel.
            digest: the candidate.
            steps: instead of those of the channel's policy; the last one has to be ``{"share": 1.0}``.
            reason: why, for the record.

        Raises:
            NotFound: there is no such channel or release.
            Conflict: a rollout is under way, or the release is current, or the channel has no release yet.
            BadRequest: these steps are none.
        """
        self._releases.get(digest)
        with self._db.begin() as connection:
            target = self._channels.get(channel)
            active = records.running(connection, channel)
            if active and not active[0].current and active[0].candidate == digest:
                return active[0].id  # sent twice: the first one waits for its approvals
            policy = _with_steps(target.policy.rollout, steps)
            current = _check_free(target, digest, active)
            if not current:
                self._channels.check_vouched(digest)
            now, number = self._clock(), records.next_number(connection)
            # A random part, so that no device is the canary of every rollout, nor can choose not to be.
            rollout = Rollout(
                id=f"r{number}-{secrets.token_hex(4)}",
                channel=channel,
                candidate=digest,
                current=current,
                state=RUNNING,
                step=-1,
                fraction=0.0,
                started=now,
                step_started=now,
                done_since=None,
                ended=None,
                reason="started",
                cause=reason,
                policy=policy,
                baseline={name: self._requests(channel, release) for name, release in _compared(digest, current)},
                progress=Progress(),
                started_by=str(acting()),
            )
            records.insert(connection, rollout, number)
            self._note(connection, rollout, "start", reason, now)
            after = {"channel": channel, "candidate": digest, "current": current, "reason": reason}
            audit.changed(connection, "rollout.start", None, after, about=rollout.id, at=now)
            if current:
                self._channels.set_rollout(channel, ActiveRollout(rollout.id, digest, 0.0))
        log.info("rollout %s of %s on %s: started, %s", rollout.id, digest, channel, reason)
        return rollout.id

    def abort(self, rollout_id: str, reason: str = "by hand") -> Rollout:
        """End a rollout; its devices go back to the current release.

        Raises:
            NotFound: there is no such rollout.
            Conflict: it has ended already.
        """
        with self._db.begin() as connection:
            rollout = self._get(connection, rollout_id)
            if rollout.state != RUNNING:
                raise Conflict(f"the rollout {rollout_id} is {rollout.state} already", "nothing is left to abort")
            self._apply(connection, rollout, Abort(reason), rollout.progress, self._clock())
        return self.get(rollout_id)

    def approve(self, rollout_id: str, reason: str = "") -> Rollout:
        """Agree to a rollout, on behalf of whoever is acting; with the last agreement that it waits for it begins.

        Raises:
            NotFound: there is no such rollout.
            Conflict: it waits for nobody's approval, or theirs is there already.
            Forbidden: they started it, or published its release.
        """
        who = str(acting())
        with self._db.begin() as connection:
            rollout, now = self._get(connection, rollout_id), self._clock()
            before = approvals.given(connection, rollout_id)
            approvals.check(rollout, self._releases.get(rollout.candidate).published_by, who, before)
            approvals.add(connection, rollout_id, Approval(who, now, reason))
            records.update(connection, rollout_id, step_started=now)  # nobody waited for devices until now
            self._note(connection, rollout, "approve", f"{who}: {reason}", now)
            audit.changed(connection, "rollout.approve", None, {"reason": reason}, about=rollout_id, at=now)
        return self.get(rollout_id)

    def approvals(self, rollout_id: str) -> Sequence[Approval]:
        """Who agreed to a rollout, the oldest first."""
        with self._db.read() as connection:
            return approvals.given(connection, rollout_id)

    def get(self, rollout_id: str) -> Rollout:
        """The rollout; raises `NotFound`."""
        with self._db.read() as connection:
            return self._get(connection, rollout_id)

    def newest(self, channel: str | None = None, limit: int = 200) -> Sequence[Rollout]:
        """The newest rollouts, newest first."""
        with self._db.read() as connection:
            return records.newest(connection, channel, limit)

    def active(self, channel: str) -> Rollout | None:
        """The rollout that is under way on a channel, or None."""
        with self._db.read() as connection:
            return next(iter(records.running(connection, channel)), None)

    def history(self, rollout_id: str) -> Sequence[HistoryEntry]:
        """Every decision, oldest first; raises `NotFound`."""
        with self._db.read() as connection:
            self._get(connection, rollout_id)
            return records.history(connection, rollout_id)

    def tick(self, now: float | None = None) -> None:
        """Decide on every rollout under way, and do what was decided; one that fails does not hold up the others."""
        now = self._clock() if now is None else now
        with self._db.read() as connection:
            active = records.running(connection)
        for rollout in active:
            try:
                self._step(rollout, now)
            except Exception:
                log.exception("rollout %s could not be decided; it stays where it is", rollout.id)

    def _step(self, rollout: Rollout, now: float) -> None:
        moved_on = _moved_on(rollout, self._channels.find(rollout.channel))
        decision, progress = (None, rollout.progress) if moved_on else self._decide(rollout, now)
        with self._db.begin() as connection:
            if records.find(connection, rollout.id) != rollout:
                return  # somebody changed it since it was read: the next tick sees that
            if decision is None:
                reason = "the channel was given another release meanwhile"
                self._close(connection, rollout, ABORTED, reason, now)
            else:
                self._apply(connection, rollout, decision, progress, now)

    def _decide(self, rollout: Rollout, now: float) -> tuple[Decision, Progress]:
        with self._db.read() as connection:
            agreed = approvals.given(connection, rollout.id)
        if (missing := approvals.missing(rollout, agreed)) > 0:
            reason = f"it waits for {missing} of {rollout.policy.approvals} approvals"
            return Wait("approvals", reason), rollout.progress
        if not rollout.current:
            return Finish("it is approved, and the channel's first release"), rollout.progress
        devices, state = self._views(rollout, now), rollout.for_rules
        candidate, current = (
            self._since_start(rollout, name, release) for name, release in _compared(rollout.candidate, rollout.current)
        )
        decision = decide(state, rollout.policy, devices, now, candidate=candidate, current=current)
        return decision, count(state, [device for device in devices if device.position < rollout.fraction])

    def _apply(
        self, connection: Connection, rollout: Rollout, decision: Decision, progress: Progress, now: float
    ) -> None:
        match decision:
            case Wait():
                if _wait_kind(rollout.reason) != _wait_kind(decision.reason):
                    self._note(connection, rollout, "wait", decision.reason, now)
                broken = rollout.done_since is not None and decision.done_since is None
                changes = {
                    "reason": decision.reason,
                    "done_since": decision.done_since,
                    "step_started": now if broken else rollout.step_started,
                }
                if progress != rollout.progress or any(getattr(rollout, key) != new for key, new in changes.items()):
                    records.update(connection, rollout.id, progress=progress, **changes)
            case Widen():
                moved = replace(rollout, step=decision.step, fraction=decision.fraction)
                records.update(
                    connection,
                    rollout.id,
                    progress=progress,
                    step=decision.step,
                    fraction=decision.fraction,
                    step_started=now,
                    done_since=None,
                    reason=decision.reason,
                )
                self._note(connection, moved, "widen", decision.reason, now)
                self._channels.set_rollout(
                    rollout.channel, ActiveRollout(rollout.id, rollout.candidate, decision.fraction)
                )
            case Finish():
                self._close(connection, rollout, FINISHED, decision.reason, now, progress)
                self._channels.set_current(rollout.channel, rollout.candidate)
            case Abort():
                self._close(connection, rollout, ABORTED, decision.reason, now, progress)
                shown = self._channels.get(rollout.channel).rollout
                if shown is not None and shown.id == rollout.id:
                    self._channels.set_rollout(rollout.channel, None)

    def _close(
        self,
        connection: Connection,
        rollout: Rollout,
        state: str,
        reason: str,
        now: float,
        progress: Progress | None = None,
    ) -> None:
        records.update(connection, rollout.id, progress=progress, state=state, reason=reason, ended=now)
        decision = "finish" if state == FINISHED else "abort"
        self._note(connection, rollout, decision, reason, now)
        ended = {"state": state, "reason": reason}
        audit.changed(connection, f"rollout.{decision}", {"state": rollout.state}, ended, about=rollout.id, at=now)
        log.info("rollout %s on %s: %s, %s", rollout.id, rollout.channel, state, reason)

    def _note(self, connection: Connection, rollout: Rollout, decision: str, reason: str, now: float) -> None:
        entry = HistoryEntry(now, decision, rollout.step, rollout.fraction, reason)
        records.write_history(connection, rollout.id, entry)

    def _get(self, connection: Connection, rollout_id: str) -> Rollout:
        if (rollout := records.find(connection, rollout_id)) is None:
            raise NotFound(f"there is no rollout {rollout_id[:80]!r}", "GET /api/v1/rollouts lists them")
        return rollout

    def _views(self, rollout: Rollout, now: float) -> Sequence[DeviceView]:
        """The channel's followers, without those that are pinned: they do not take part."""
        followers = self._devices.all(rollout.channel)
        return [self._view(rollout.id, device, now) for device in followers if not device.desired.get("pin")]

    def _view(self, rollout_id: str, device: Device, now: float) -> DeviceView:
        return DeviceView(
            name=device.device,
            position=position(rollout_id, device.device),
            online=device.online and now - device.last_seen <= self._recent_s,
            release=device.release,
            update_state=device.update_state,
            update_release=device.update_release,
            update_rollout=device.update_rollout,
            reason=device.update_reason,
        )

    def _since_start(self, rollout: Rollout, name: str, release: str) -> Requests | None:
        """What a release has answered since the rollout began; None when that cannot be said."""
        try:
            total, before = self._requests(rollout.channel, release), rollout.baseline[name]
        except Exception:
            log.exception("the totals of %s on %s cannot be read", release, rollout.channel)
            return None
        since = Requests(total.predictions - before.predictions, total.errors - before.errors)
        return since if since.predictions >= 0 and since.errors >= 0 else None

    def _requests(self, channel: str, release: str) -> Requests:
        totals = self._insights.totals(channel, release)
        bad = int(totals["nonfinite"])  # answered, and worth nothing
        return Requests(int(totals["predictions"]) - bad, int(totals["errors"]) + bad)


def _compared(candidate: str, current: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("candidate", candidate), ("current", current)


def _wait_kind(reason: str) -> str:
    """A reason without its numbers: the history notes a new kind of wait, not each device that comes along."""
    return "".join(letter for letter in reason if not letter.isdigit())


def _moved_on(rollout: Rollout, channel: Channel | None) -> bool:
    """Whether somebody gave the channel another release meanwhile."""
    if channel is None:
        return True
    if not rollout.current:  # a first release, which devices are not shown until it is approved
        return channel.current is not None
    return channel.rollout is None or channel.rollout.id != rollout.id


def _check_free(channel: Channel, digest: str, active: Sequence[Rollout]) -> str:
    """The channel's current release; "" where a first one has to be approved."""
    if active or channel.rollout is not None:
        name = active[0].id if active else channel.rollout.id if channel.rollout else ""
        raise Conflict(
            f"the rollout {name} is under way on {channel.name}", f"wait, or POST /api/v1/rollouts/{name}/abort"
        )
    if channel.current is None and channel.policy.rollout.approvals:
        return ""
    if channel.current is None:
        raise Conflict(
            f"the channel {channel.name} has no release yet",
            f"POST /api/v1/channels/{channel.name}/releases makes the first one current at once",
        )
    if channel.current == digest:
        raise Conflict(f"this release is already current on {channel.name}", "nothing is to be done")
    return channel.current


def _with_steps(policy: RolloutPolicy, steps: Sequence[Step] | None) -> RolloutPolicy:
    if steps is None:
        return policy
    try:
        return RolloutPolicy.model_validate({**policy.model_dump(), "steps": [step.model_dump() for step in steps]})
    except ValueError as error:
        raise BadRequest(
            f"these are no steps of a rollout: {error}", 'the last step has to be {"share": 1.0}'
        ) from error
