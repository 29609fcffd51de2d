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
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edge_agent.clock import Clock
from edge_agent.observing.health import DeviceHealth, HealthSample
from edge_agent.observing.keeper import Keeper
from edge_agent.observing.labels import Labelling, Observers
from edge_agent.observing.own import OwnAccuracy
from edge_agent.observing.own_alarms import OwnAlarms
from edge_agent.observing.releases import KnownReleases
from edge_agent.observing.retention import Batch, Changes, Retention
from edge_agent.observing.scores import BLOCK_REQUESTS, Block, ScoresAlone
from edge_agent.observing.segments import Segments
from edge_agent.observing.store import Store, StoreError
from edge_agent.observing.thinning import WIDE_VALUES, WIDE_VALUES_PER_S, Thinning
from edge_agent.observing.watch import NO_ROWS, Answered, Watch
from edge_agent.observing.windows import OpenWindows
from edge_agent.ports import Array, Chosen, FeedbackItem, FeedbackResult, LoadedRelease, OpenAudit
from edge_agent.pulse import Pulse
from edgeloop.insights import Profile, Window, drawn_rows
from edgeloop.insights.policy import DriftRule, InsightsPolicy
from edgeloop.records import dataclass

if TYPE_CHECKING:
    from edgeloop.insights.accuracy import Accuracy

log = logging.getLogger(__name__)

FOLD_ROWS = 512
FOLD_S = 0.2
# When all is written and nothing comes, the thread looks as often as this, or twice between two checkpoints.
REST_S = 1.0
# Inputs wait in the queue; images of 600 kB would make 512 rows 300 MB.
FOLD_BYTES = 2 << 20
# When the folds cannot keep up, requests wait for them rather than memory growing without end.
_MOST_WAITING = 32
# After the store has refused (a full disk), it is asked again so soon.
RETRY_S = 2.0
_LOGGED_FAILURES = 10
_MOST_DRAWN = 10_000
# Labels of the teacher that wait to be counted; whoever brings more counts them.
_MOST_TAUGHT = 1024
# Until a fold has shown how large requests are.
_FIRST_FOLD = 16


@dataclass(frozen=True)
class Unobserved:
    """What was answered and could not be observed, since the start."""

    without_profile: int
    failed: int


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
        self._drawn: dict[str, tuple[int, ...]] = {}
        self._chosen: dict[str, Mapping[int, Chosen]] = {}
        self._escalated: deque[tuple[str, str]] = deque()
        self._taught: deque[FeedbackItem] = deque()
        self._keeps = feedback_keep > 0
        self._closed = closed
        self._health = DeviceHealth()
        self._waiting: deque[Answered | Block] = deque()
        self._scores = ScoresAlone()
        self._fold_at = _FIRST_FOLD
        self._thinning, self._wide = Thinning(full_rows_per_s), Thinning(WIDE_VALUES_PER_S)
        self._keeping = threading.Lock()
        self._windows_lock = threading.Lock()
        self._windows = OpenWindows(window_s, clock)
        self._retention = Retention(feedback_keep)
        self._retention.load(store)
        self._observers = Observers(profile_of)
        self._labelling = Labelling(self._windows, self._retention, known, self._observers)
        self._watches: dict[str, Watch] = {}
        self._without_profile = 0
        self._failed = 0
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
            self._labelling.private = policy.privacy is not None
        self.segment_field = policy.segment_field
        # A label for an answer that is not kept could not be counted.
        self.audit_share = policy.audit_share if self._keeps else 0.0

    def tell_labels(self, heard: Callable[[Sequence[tuple[str, int, int]]], None]) -> None:
        """Have ``heard`` called, quickly, with labels that are counted: (prediction id, row in the request, class)."""
        self._labelling.heard = heard

    def wanted_outputs(self, loaded: LoadedRelease) -> Sequence[str]:
        """Names of the outputs that observing needs; none for a release without a profile."""
        watch = self._watch(loaded)
        return watch.outputs if watch is not None else ()

    def in_full(self) -> bool:
        """Whether the next request is to be observed with its inputs and features, or by its scores alone."""
        return self._thinning.draw()

    def record(
        self,
        loaded: LoadedRelease,
        prediction_id: str,
        inputs: Array,
        outputs: Sequence[Array],
        places: Mapping[str, int],
        segment: str,
        latency_ns: int,
        run_ns: int,
    ) -> None:
        """Note one answered request. The arrays are read later: nobody may change them after this."""
        if inputs.size > WIDE_VALUES:
            # Decided here and not when they are counted, so that images which nobody looks at do not take memory
            # meanwhile. Two threads may lose one another's `seen`: the rate need not be exact.
            self._wide.seen(inputs.size)
            if not self._wide.draw():
                inputs = NO_ROWS
        self._waiting.append((loaded, prediction_id, inputs, outputs, places, segment, latency_ns, run_ns))

    def record_scores(
        self, loaded: LoadedRelease, prediction_id: str, scores: Array, segment: str, latency_ns: int, run_ns: int
    ) -> None:
        """Note one answered request by its scores alone; they are copied."""
        self._scores.add(loaded, prediction_id, scores, segment, latency_ns, run_ns)

    def drawn(self, loaded: LoadedRelease, prediction_id: str, rows: int) -> tuple[int, ...]:
        """Which rows of a request that is recorded next are drawn for an audit."""
        if loaded.digest not in self._watches:
            return ()
        found = drawn_rows(prediction_id, rows, self.audit_share)
        if found:
            if len(self._drawn) >= _MOST_DRAWN:  # of requests that failed to be observed
                self._drawn.clear()
            self._drawn[prediction_id] = found
        return found

    def choose(self, prediction_id: str, rows: Mapping[int, Chosen]) -> None:
        """Rows of the request that is recorded next were drawn for the hub's teacher."""
        if len(self._chosen) >= _MOST_DRAWN:
            self._chosen.clear()
        self._chosen[prediction_id] = rows

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
        if len(self._waiting) >= self._fold_at or len(self._scores) >= BLOCK_REQUESTS:
            self._fold_now()

    def record_error(self, loaded: LoadedRelease, segment: str = "") -> None:
        """Note one request that failed through the model's or the agent's fault."""
        self._waiting.append((loaded, "", NO_ROWS, (), {}, segment, 0, 0))

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
        return Unobserved(self._without_profile, self._failed)

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
        if self._windows_lock.acquire(blocking=len(self._waiting) >= _MOST_WAITING * self._fold_at):
            try:
                self._fold()
            finally:
                self._windows_lock.release()
        else:
            self._wake.set()

    def _fold(self) -> None:
        """Take the queue into the windows; the caller holds ``_windows_lock``."""
        self._count_escalations()
        self._waiting.extend(self._scores.take())
        taken = self._waiting.popleft
        group = [taken() for _ in range(len(self._waiting))]
        if not group:
            return
        if not self._unsaved:
            self._unsaved = True
            self._wake.set()  # a rest is over
        releases, segments = [item[0] for item in group], [item[5] for item in group]
        if releases.count(releases[0]) == segments.count(segments[0]) == len(group):
            self._fold_group(group)
        else:
            # Segments take turns, request by request; counting them one at a time would cost a hundred times as much.
            # What came first stays first, since the release that comes last is the one that serves now.
            kinds: dict[tuple[int, str], list[Answered | Block]] = {}
            for item in group:
                kinds.setdefault((id(item[0]), item[5]), []).append(item)
            for some in kinds.values():
                self._fold_group(some)
        asked = [item for item in group if not isinstance(item, Block)]
        rows = sum(len(item.scores) for item in group if isinstance(item, Block))
        if asked:
            self._fold_at, others = _sizes(asked)
            rows += others
        self._thinning.seen(rows)

    def _catch_up(self) -> None:
        """Fold, and count what the teacher has said of it; the caller holds ``_windows_lock``."""
        self._fold()
        if not self._taught:
            return
        taken = self._taught.popleft
        self._unsaved = True
        found = self._labelling.take([taken() for _ in range(len(self._taught))])
        if found.unknown or found.invalid:
            log.info("of the teacher's labels %d are unknown, %d invalid", len(found.unknown), len(found.invalid))

    def _fold_group(self, group: list[Answered | Block]) -> None:
        """Fold requests of one release. Observing must never cost an answer: what it misses is counted and shown."""
        loaded, segment = group[0][0], group[0][5]
        try:
            watch = self._watch(loaded)
            if watch is None:
                self._without_profile += sum(len(i.ids) if isinstance(i, Block) else 1 for i in group)
                return
            watch.observer.clip = self._clip(loaded.digest)
            session = loaded.session
            window = self._windows.serving(
                loaded.digest, segment, watch.facts.schema, session.variant, session.provider
            )
            for block in group:
                if isinstance(block, Block):
                    self._keep(loaded.digest, watch.observe_scores(loaded, window, block, self._drawn))
            asked = [item for item in group if not isinstance(item, Block)]
            answered = [item for item in asked if item[3]]
            if len(answered) < len(asked):
                watch.observer.error(window, len(asked) - len(answered))
            if answered:
                self._keep(loaded.digest, watch.observe(loaded, window, answered, self._drawn))
        except Exception:
            if len(group) > 1:
                # Blocks and errors were counted before anything could fail; one odd request must not cost the others.
                for item in group:
                    if not isinstance(item, Block) and item[3]:
                        self._fold_group([item])
                return
            self._failed += 1
            if self._failed <= _LOGGED_FAILURES:
                log.exception("a request of release %s could not be observed", loaded.digest)

    def _count_escalations(self) -> None:
        taken = self._escalated.popleft
        counted = Counter([taken() for _ in range(len(self._escalated))])
        for (release, segment), count in counted.items():
            facts, observer = self._known.get(release), self._observers.get(release)
            if facts is not None and observer is not None:
                observer.escalation(self._windows.late(release, segment, facts.schema), count)
                self._unsaved = True

    def _keep(self, release: str, batch: Batch) -> None:
        if self._chosen:
            starts = (np.cumsum(batch.counts) - batch.counts).tolist()
            rows = {
                start + row: chosen
                for start, name in zip(starts, batch.ids, strict=True)
                if name in self._chosen
                for row, chosen in self._chosen.pop(name).items()
            }
            batch = replace(batch, chosen=rows)
        self._retention.add(release, batch)
        if batch.audited is not None:
            for name in batch.ids:
                self._drawn.pop(name, None)

    def _clip(self, release: str) -> float:
        """As it was remembered first: what a window's sums were clipped at has to be known when it leaves."""
        facts = self._known.get(release)
        return math.inf if facts is None else facts.clipping(self._labelling.private)

    def _watch(self, loaded: LoadedRelease) -> Watch | None:
        watch = self._watches.get(loaded.digest)
        if watch is None or watch.loaded() is not loaded:
            watch = Watch.of(loaded)
            if watch is None:
                return None
            self._known.add(loaded.digest, watch.facts)
            self._observers.add(loaded.digest, watch.observer)
            self._watches[loaded.digest] = watch
            for digest in [digest for digest, other in self._watches.items() if other.loaded() is None]:
                del self._watches[digest]
        return watch

    # -- putting away ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            wait_s = self._patience_s()
            self.pulse.beat(wait_s)
            self._wake.wait(wait_s)
            self._wake.clear()
            now = self._clock.monotonic()
            self._thinning.look(now)
            self._wide.look(now)
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
            counting = self._unsaved or self._waiting or self._taught
            sample = self._health.sample() if counting and now >= self._checkpoint_due else None
            with self._windows_lock:
                self._catch_up()
                self._note_health(sample)
                if now < self._retry_at and not everything:
                    return False
                closing = self._windows.take_due(now, everything)
                if not closing and not (now >= self._checkpoint_due or everything):
                    return True
                still_open = self._windows.copies(now)
                changes = self._retention.prepare()
                self._unsaved = False
            written = self._write(closing, still_open, changes)
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

    def _note_health(self, sample: HealthSample | None) -> None:
        window = self._windows.busy()
        observer = self._observers.get(window.release) if window is not None else None
        if sample is not None and window is not None and observer is not None:
            observer.health(window, *sample)

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


def _sizes(group: Sequence[Answered]) -> tuple[int, int]:
    """How many requests like these make ``FOLD_ROWS`` rows or ``FOLD_BYTES``, and about how many rows these are."""
    some = group[:: max(len(group) // 16, 1)]
    rows = max(sum(len(item[3][0]) if item[3] else 0 for item in some), 1)
    size = max(sum(item[2].nbytes for item in some), 1)
    return max(1, min(FOLD_ROWS * len(some) // rows, FOLD_BYTES * len(some) // size, FOLD_ROWS)), (
        rows * len(group) // len(some)
    )
