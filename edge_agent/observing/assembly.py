"""All of observing, put together over one database file."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from edge_agent.clock import Clock, SystemClock
from edge_agent.observing.budget import Budget
from edge_agent.observing.clocks import ClockNotes
from edge_agent.observing.keeper import Keeper
from edge_agent.observing.ladder import name_of
from edge_agent.observing.ledger import Ledger, Totals
from edge_agent.observing.outbox import Outbox, OutboxState
from edge_agent.observing.pace import Pace, ReplayRules
from edge_agent.observing.policy import PolicyInForce
from edge_agent.observing.privacy import Privacy, PrivacyState
from edge_agent.observing.recorder import WindowRecorder
from edge_agent.observing.releases import KnownReleases
from edge_agent.observing.segments import Segments
from edge_agent.observing.store import Store
from edgeloop.insights import Profile, WindowSchema
from edgeloop.insights.policy import KEY, InsightsPolicy, Limits
from edgeloop.protocol import DeviceAlarm
from edgeloop.records import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Insights:
    """What leaves the device.

    Attributes:
        bytes_today: that left since midnight, UTC.
        bytes_per_day: the budget, or None.
        gives_up: what the waiting window that has given up most has given up last, or "".
        replaying: whether a backlog waits or leaves.
        aspects: that leave, or None for all.
        segment_field: parameter by which windows are kept apart, or None.
        min_group: predictions that a window holds at least before it leaves.
    """

    bytes_today: int
    bytes_per_day: int | None
    gives_up: str
    replaying: bool
    aspects: tuple[str, ...] | None
    segment_field: str | None
    min_group: int


@dataclass(frozen=True)
class ObservingStatus:
    """What ``edge-agent status`` shows of observing.

    Attributes:
        epoch: of the device's memory.
        last_seq: sequence number of the window that was closed last.
        outbox: what the hub has not acknowledged.
        insights: what of it leaves when, and under which policy: see `Insights`.
        clock: what is wrong with the device's clock, or "".
        ledger: totals of all closed windows.
        by_release: the same per release, with the counts per class.
        unclean_restarts: starts after a kill or a power cut.
        recovered_windows: windows that this start found open and closed.
        kept_predictions: rows that wait for a label.
        without_profile: requests that were not observed because their release has no profile.
        failed: requests that could not be observed for another reason.
        trouble: why the database cannot be written, or "".
        privacy: the noise that what leaves carries.
    """

    epoch: int
    last_seq: int
    outbox: OutboxState
    insights: Insights
    clock: str
    ledger: dict[str, int]
    by_release: dict[str, Totals]
    unclean_restarts: int
    recovered_windows: int
    kept_predictions: int
    without_profile: int
    failed: int
    trouble: str
    privacy: PrivacyState


class Observing:
    """Store, ledger, outbox and recorder over ``path``.

    Args:
        path: of agent.db.
        window_s: seconds after which an open window is closed.
        checkpoint_s: seconds between checkpoints of open windows.
        feedback_keep: rows of recent predictions that wait for their labels.
        outbox_bytes: size of the outbox before old windows are merged.
        full_rows_per_s: rows a second that are observed in full; beyond it a random share is.
        limits: what the device's owner lets leave it.
        replay: how a backlog leaves.
        clock: the device's; another one for tests.
        profile_of: the profile of a release that is on this device and not loaded, or None.
        closed: called after windows were closed.

    Raises:
        StoreError: the database cannot be used; the message says what to do.
    """

    def __init__(
        self,
        path: Path,
        *,
        window_s: float = 30.0,
        checkpoint_s: float = 2.0,
        feedback_keep: int = 8192,
        outbox_bytes: int = 64 << 20,
        full_rows_per_s: float = math.inf,
        limits: Limits | None = None,
        replay: ReplayRules | None = None,
        clock: Clock | None = None,
        profile_of: Callable[[str], Profile | None] = lambda digest: None,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        clock = clock or SystemClock()
        self.store = Store(path)
        self.policy = PolicyInForce(self.store, limits or Limits(), InsightsPolicy, KEY)
        self._known = KnownReleases(self.store)
        self.ledger = Ledger(self.store)
        self.budget = Budget(self.store, lambda: self.policy.current.bytes_per_day, clock)
        self.privacy = Privacy(
            self.store,
            self.ledger,
            lambda: self.policy.current,
            clip_of=self._clip_of,
            window_s=window_s,
            clock=clock,
        )
        self.outbox = Outbox(
            self.store,
            outbox_bytes,
            self._schema_of,
            policy=lambda: self.policy.current,
            privacy=self.privacy,
            room=self.budget.room,
            wall=clock.wall,
        )
        self.pace = Pace(self.outbox, self.budget, replay or ReplayRules())
        self.clocks = ClockNotes(self.store, clock)
        self.recorder = WindowRecorder(
            self.store,
            Keeper(self.store, self.outbox, self.ledger, self._known, self.clocks, lambda: self.policy.current),
            self._known,
            window_s=window_s,
            checkpoint_s=checkpoint_s,
            feedback_keep=feedback_keep,
            full_rows_per_s=full_rows_per_s,
            segments=Segments(self.store),
            clock=clock,
            profile_of=profile_of,
            closed=closed,
            drift=lambda: self.policy.current.drift,
        )
        self.policy.follow(self.recorder.follow)
        if self.store.started_unclean:
            log.warning(
                "the agent was not stopped in order; %d open windows were recovered, and what came after the last "
                "checkpoint (up to %.1f s) is lost",
                self.recorder.recovered_windows,
                checkpoint_s,
            )

    def start(self) -> None:
        """Start the recorder's thread."""
        self.recorder.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Close all windows and the database; nothing is lost when the disk takes it."""
        self.store.close(clean=self.recorder.stop(timeout_s))

    @property
    def told_alarms(self) -> tuple[DeviceAlarm, ...]:
        """The device's own alarms as the hub is told of them: none where what leaves carries noise.

        They come from the exact windows; the hub compares the noised ones itself.
        """
        return () if self.privacy.wanted else self.recorder.alarms.open

    def status(self) -> ObservingStatus:
        """What status shows.

        Raises:
            StoreError: the database cannot be read.
        """
        outbox, unobserved, policy = self.outbox.state(), self.recorder.unobserved(), self.policy.current
        return ObservingStatus(
            epoch=self.store.epoch,
            last_seq=outbox.last_seq,
            outbox=outbox,
            insights=Insights(
                bytes_today=self.budget.today,
                bytes_per_day=policy.bytes_per_day,
                gives_up=name_of(outbox.level),
                replaying=self.pace.replaying,
                aspects=policy.aspects,
                segment_field=policy.segment_field,
                min_group=policy.min_group,
            ),
            clock=self.clocks.trouble(),
            ledger=self.ledger.totals(),
            by_release=self.ledger.by_release(),
            unclean_restarts=self.store.unclean_restarts,
            recovered_windows=self.recorder.recovered_windows,
            kept_predictions=self.recorder.kept_predictions,
            without_profile=unobserved.without_profile,
            failed=unobserved.failed,
            trouble=self.recorder.trouble,
            privacy=self.privacy.state(),
        )

    def _clip_of(self, release: str) -> float | None:
        facts = self._known.get(release)
        return None if facts is None else facts.clip

    def _schema_of(self, release: str) -> WindowSchema:
        facts = self._known.get(release)
        if facts is None:
            raise KeyError(release)  # a row is never written before its release
        return facts.schema
