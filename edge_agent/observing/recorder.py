"""The recorder: every answered request becomes part of the open window of its release.

``record`` only appends to a queue. A fold takes the queue into the window, 512 rows at a time, in the thread that made
it full (in ``settle``, when its client has been answered where that can be), or every 0.2 s in its own thread
(``docs/decisions/observing-fold.md`` says why). That thread also writes checkpoints and closes windows; when all is
written and nothing comes, it looks less often. Timers use the monotonic clock, so a wrong or jumping clock changes no
count.

Locks, in this order: ``_keeping`` (who writes windows to the store), ``_windows_lock`` (windows and kept predictions in
memory; held for milliseconds and never while writing to the disk).
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from edge_agent.clock import Clock
from edge_agent.observing.counting import Counting, Unobserved
from edge_agent.observing.health import DeviceHealth
from edge_agent.observing.keeper import Keeper
from edge_agent.observing.labels import Labelling
from edge_agent.observing.observers import Observers
from edge_agent.observing.own import OwnAccuracy
from edge_agent.observing.own_alarms import OwnAlarms
from edge_agent.observing.picked import Picked
from edge_agent.observing.queue import Queue
from edge_agent.observing.releases import KnownReleases
from edge_agent.observing.retention import Changes, Retention
from edge_agent.observing.scores import BLOCK_REQUESTS
from edge_agent.observing.segments import Segments
from edge_agent.observing.store import Store, StoreError
from edge_agent.observing.watch import Watches
from edge_agent.observing.windows import OpenWindows
from edge_agent.ports import Chosen, FeedbackItem, FeedbackResult, LoadedRelease, OpenAudit
from edge_agent.pulse import Pulse
from edgeloop.insights import Profile, Window
from edgeloop.insights.policy import DriftRule, InsightsPolicy

if TYPE_CHECKING:
    from edgeloop.insights.accuracy import Accuracy

log = logging.getLogger(__name__)

FOLD_S = 0.2
# When all is written and nothing comes, the thread looks as often as this, or twice between two checkpoints.
REST_S = 1.0
# Labels of the teacher that wait to be counted; whoever brings more counts them.
_MOST_TAUGHT = 1024
# After the store has refused (a full disk), it is asked again so soon.
RETRY_S = 2.0


class WindowRecorder:
    """Implements :class:`edge_agent.ports.Recorder`.

    Attributes:
        alarms: drifts that this device sees in its own windows.
        recovered_windows: windows that a killed agent had left open and that were closed at this start.
        trouble: why the store refuses to be written, or "".

    Args:
        store: the device's database.
        keeper: writes windows to it.
        known: what is remembered of releases.
        window_s: seconds after which an open window is closed.
        checkpoint_s: seconds between two checkpoints of open windows: what a killed agent can lose.
        feedback_keep: rows of recent predictions that wait for their labels.
        full_rows_per_s: rows a second that are observed in full.
        segments: names the segments of requests.
        clock: the device's.
        profile_of: the profile of a release that is on this device and not loaded, for labels that come after a
            restart; None when it is gone.
        closed: called after windows were closed, from the thread that closed them, and when an alarm has changed.
        drift: when the device raises its own alarm.
    """

    def __init__(
        self,
        store: Store,
        keeper: Keeper,
        known: KnownReleases,
        *,
        window_s: float = 30.0,
        checkpoint_s: float = 2.0,
        feedback_keep: int = 8192,
        full_rows_per_s: float = math.inf,
        segments: Segments,
        clock: Clock,
        profile_of: Callable[[str], Profile | None] = lambda digest: None,
        closed: Callable[[], None] = lambda: None,
        drift: Callable[[], DriftRule] = DriftRule,
    ) -> None:
        self.alarms = OwnAlarms(self.profile, drift, closed)
        self._keeper = keeper
        self._known = known
        self._checkpoint_s, self._clock = checkpoint_s, clock
        self._segments, self.segment_of = segments, segments.of
        self.segment_field: str | None = None
        self.audit_share = 0.0
        self._own = OwnAccuracy(clock)
        self._picked = Picked()
        self._escalated: deque[tuple[str, str]] = deque()
        self._taught: deque[FeedbackItem] = deque()
        self._keeps = feedback_keep > 0
        self._closed = closed
        self._health = DeviceHealth()
        self._queue = queue = Queue(full_rows_per_s)
        # The hot path: no call in between.
        self.in_full, self.record = queue.in_full, queue.record
        self.record_scores, self.record_error = queue.record_scores, queue.record_error
        self._keeping = threading.Lock()
        self._windows_lock = threading.Lock()
        self._windows = OpenWindows(window_s, clock)
        self._retention = Retention(feedback_keep)
        self._retention.load(store)
        self._observers = Observers(profile_of)
        self._labelling = Labelling(self._windows, self._retention, known, self._observers)
        self._watches = Watches(known, self._observers)
        self._counting = Counting(self._windows, self._retention, known, self._observers, self._watches, self._picked)
        self.trouble = ""
        self._retry_at = 0.0
        self._checkpoint_due = clock.monotonic() + checkpoint_s
        self._unsaved = False
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="observing", daemon=True)
        #: Shows that the thread lives.
        self.pulse = Pulse("observing")
        self.recovered_windows = keeper.recover()

    # -- the data plane's side ------------------------------------------------------------------------------------

    def follow(self, policy: InsightsPolicy) -> None:
        """Keep windows apart as another policy says."""
        self._segments.follow(policy)
        with self._windows_lock:
            self._known.private = policy.privacy is not None
        self.segment_field = policy.segment_field
        # A label for an answer that is not kept could not be counted.
        self.audit_share = policy.audit_share if self._keeps else 0.0

    def tell_labels(self, heard: Callable[[Sequence[tuple[str, int, int]]], None]) -> None:
        """Have ``heard`` called, quickly, with labels that are counted: (prediction id, row in the request, class)."""
        self._labelling.heard = heard

    def wanted_outputs(self, loaded: LoadedRelease) -> Sequence[str]:
        """Names of the outputs that observing needs; none for a release without a profile."""
        watch = self._watches.of(loaded)
        return watch.outputs if watch is not None else ()

    def drawn(self, loaded: LoadedRelease, prediction_id: str, rows: int) -> tuple[int, ...]:
        """Which rows of a request that is recorded next are drawn for an audit."""
        return self._picked.draw(prediction_id, rows, self.audit_share) if loaded.digest in self._watches else ()

    def choose(self, prediction_id: str, rows: Mapping[int, Chosen]) -> None:
        """Rows of the request that is recorded next were drawn for the hub's teacher."""
        self._picked.choose(prediction_id, rows)

    def escalated(self, release: str, segment: str) -> None:
        """Note one row that was sent to the hub's teacher."""
        self._escalated.append((release, segment))

    def taught(self, items: Sequence[FeedbackItem]) -> None:
        """Note the teacher's labels; they are counted at the recorder's next look, many at a time.

        A client waits for the same answer: counting wakes no thread that would hold the interpreter meanwhile.
        """
        self._taught.extend(items)
        if len(self._taught) >= _MOST_TAUGHT:
            with self._windows_lock:
                self._catch_up()

    def open_audits(self, most: int) -> list[OpenAudit]:
        """Answers whose true labels are asked for and have not come, the newest first."""
        with self._windows_lock:
            self._catch_up()
            return [self._labelling.open_audit(found) for found in self._retention.open_audits(most)]

    def kept(self, prediction_id: str) -> list[OpenAudit]:
        """The rows of an earlier answer, drawn or not, each as an audit tells it; none where it is not kept."""
        with self._windows_lock:
            self._catch_up()
            return [self._labelling.open_audit(found) for found in self._retention.rows_of(prediction_id)]

    def settle(self) -> None:
        """Count what waits, if it has become much; whoever has recorded calls this when its client is answered."""
        queue = self._queue
        if len(queue.asked) >= queue.fold_at or len(queue.scores) >= BLOCK_REQUESTS:
            self._fold_now()

    def feedback(self, items: Sequence[FeedbackItem]) -> FeedbackResult:
        """Take true labels for earlier predictions, those of this very moment included."""
        with self._windows_lock:
            self._catch_up()
            self._unsaved = True
            return self._labelling.take(items)

    # -- the agent's side -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread that folds, checkpoints and closes."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread and close every open window; True when nothing was left behind."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive() and self.flush()

    def flush(self) -> bool:
        """Close every open window now; False when the store refused and they stay open."""
        return self.put_away(everything=True)

    def unobserved(self) -> Unobserved:
        """What was answered and not observed."""
        return self._counting.unobserved

    def accuracy(self, release: str) -> Accuracy | None:
        """What the closed windows of about the last hour say of a release's accuracy; None without any."""
        observer = self._observers.get(release)
        return None if observer is None else self._own.of(release, observer.profile)

    def profile(self, release: str) -> Profile | None:
        """The profile of a release, or None when it is no longer on this device."""
        observer = self._observers.get(release)
        return None if observer is None else observer.profile

    @property
    def kept_predictions(self) -> int:
        """Rows of recent predictions that are kept for their labels."""
        return self._retention.rows

    # -- folding --------------------------------------------------------------------------------------------------

    def _fold_now(self) -> None:
        if self._windows_lock.acquire(blocking=self._queue.overflows):
            try:
                self._fold()
            finally:
                self._windows_lock.release()
        else:
            self._wake.set()

    def _fold(self) -> None:
        """Take what waits into the windows; the caller holds ``_windows_lock``."""
        escalated = [self._escalated.popleft() for _ in range(len(self._escalated))]
        if escalated and self._counting.escalations(escalated):
            self._unsaved = True
        if group := self._queue.take():
            if not self._unsaved:
                self._unsaved = True
                self._wake.set()  # a rest is over
            self._counting.requests(group)

    def _catch_up(self) -> None:
        """Fold, and count what the teacher has said of it; the caller holds ``_windows_lock``."""
        self._fold()
        if not self._taught:
            return
        self._unsaved = True
        found = self._labelling.take([self._taught.popleft() for _ in range(len(self._taught))])
        if found.unknown or found.invalid:
            log.info("of the teacher's labels %d are unknown, %d invalid", len(found.unknown), len(found.invalid))

    # -- putting away ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            wait_s = self._patience_s()
            self.pulse.beat(wait_s)
            self._wake.wait(wait_s)
            self._wake.clear()
            now = self._clock.monotonic()
            self._queue.look(now)
            try:
                self.put_away()
                self.alarms.look()
            except Exception:
                log.exception("the recorder's thread met an unforeseen error and goes on")

    def _patience_s(self) -> float:
        """Until the next look. At rest too, an answer is in a checkpoint within ``checkpoint_s`` of being given."""
        return FOLD_S if self._unsaved else max(FOLD_S, min(REST_S, self._checkpoint_s / 2))

    def put_away(self, everything: bool = False) -> bool:
        """Fold; close what is due, or everything; write a checkpoint when it is time. False when the store refused."""
        with self._keeping:
            now = self._clock.monotonic()
            # Taken before the lock: reading sensors may take milliseconds.
            counting = self._unsaved or self._queue or self._taught
            sample = self._health.sample() if counting and now >= self._checkpoint_due else None
            with self._windows_lock:
                self._catch_up()
                if sample is not None:
                    self._counting.health(sample)
                if now < self._retry_at and not everything:
                    return False
                closing = self._windows.take_due(now, everything)
                if not closing and not (now >= self._checkpoint_due or everything):
                    return True
                still_open = self._windows.copies(now)
                changes = self._retention.prepare()
                self._unsaved = False
            written = False
            try:
                written = self._write(closing, still_open, changes)
            finally:  # whatever has happened, what was not written goes on counting
                with self._windows_lock:
                    if written:
                        self._retention.written(changes)
                    else:
                        self._retention.not_written(changes)
                        self._windows.put_back(closing, now)
                        self._unsaved = True
                self._checkpoint_due = now + self._checkpoint_s
                self._retry_at = 0.0 if written else now + RETRY_S
        if written and closing:
            self._own.closed(closing)
            self.alarms.add(closing)
            self._closed()
        return written

    def _write(self, closing: list[Window], still_open: list[Window], changes: Changes) -> bool:
        if not closing and not still_open and not changes:
            return True
        try:
            self._keeper.write(closing, still_open, changes)
        except StoreError as error:
            if not self.trouble:
                log.error("%s", error)
            self.trouble = str(error)
            return False
        if self.trouble:
            log.info("windows are written again")
        self.trouble = ""
        return True
