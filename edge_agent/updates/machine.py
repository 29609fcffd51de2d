"""The update machine: one thread that brings the device to the release that its channel offers.

The table is in `rules`; the main verb, `_update`, reads as the life cycle. Every state is stored before it is acted on,
and reported.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_agent.logs import Log
from edge_agent.ports import LoadedRelease, Reporter, Serving, ServingCounters, Trust, UpdateStatus
from edge_agent.pulse import Pulse
from edge_agent.trust.open import OpenTrust
from edge_agent.updates import rules
from edge_agent.updates.active import Active
from edge_agent.updates.asking import Asked
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.disk import Disk
from edge_agent.updates.errors import LeftByHand, Refused, Transient, Unvouched, UpdateError, Withdrawn, WrongBytes
from edge_agent.updates.offered import Offered
from edge_agent.updates.preparing import LONGEST_TEST_S, SILENCE_S, Preparing, Surroundings
from edge_agent.updates.probation import Probation
from edge_agent.updates.rules import (
    FETCHING,
    IDLE,
    PROBATION,
    ROLLED_BACK,
    STAGED,
    TESTING,
    UNPROVEN,
    VERIFYING,
    Offer,
)
from edge_agent.updates.settings import UpdateSettings
from edge_agent.updates.store import Installed, Position, UpdateStore
from edge_agent.updates.testing import measure_again

if TYPE_CHECKING:
    from edgeloop.protocol import ChannelDocument

log = Log(__name__)

#: How often a release on probation is looked at, seconds.
PROBATION_LOOK_S = 0.1
#: How often a thread with nothing to do shows that it lives, seconds.
IDLE_LOOK_S = 10.0


class UpdateMachine:
    """Implements `edge_agent.ports.Updates`."""

    def __init__(
        self,
        settings: UpdateSettings,
        serving: Serving,
        reporter: Reporter | None = None,
        *,
        clock: Callable[[], float] = time.time,
        store: UpdateStore | None = None,
        disk: Disk | None = None,
        trust: Trust | None = None,
        hold: Callable[[bool], str] = lambda first: "",
        slow: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Open what was stored; nothing runs before `start`.

        Args:
            settings: the owner's; may be replaced later with `use`.
            serving: who answers requests.
            reporter: who tells the hub; may be set later with `report_to`.
            clock: unix seconds; only written down, never waited by.
            store: where states are kept; None: ``updates.db`` in the data folder.
            disk: changes files.
            trust: who vouches for releases; None: nobody does, and nobody has to.
            hold: says why updates have to wait now, or ""; told whether nothing serves yet.
            slow: told every few seconds of a load that takes long.
        """
        self._settings, self._reporter, self._clock = settings, reporter, clock
        self._hold = hold
        self._serving = serving
        self._store = store or UpdateStore(settings.data / "updates.db", disk)
        self._files = ReleaseFiles(settings.data, disk)
        self._active = Active(
            self._store,
            self._files,
            serving,
            tests=lambda: self._settings.tests,
            tell=self._tell,
            progress=lambda text: self._preparing.progress(text),  # noqa: PLW0108  # made below
            clock=clock,
        )
        self._wake, self._stop = threading.Event(), threading.Event()
        self._offered = Offered(self._store)
        self._asked = Asked()
        self._failures = 0
        self._seen: tuple[ChannelDocument | None, UpdateSettings] = (None, settings)
        self._measured = False
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)
        #: Shows that the thread lives.
        self.pulse = Pulse("updates")
        self._preparing = Preparing(
            self._store,
            self._files,
            Surroundings(
                settings=lambda: self._settings,
                tell=self._tell,
                clock=clock,
                trust=trust or OpenTrust(),
                hold=lambda: hold(self._active.loaded is None),
                interrupted=self._interrupted,
                make_room=self._active.collect,
                slow=slow,
                pulse=self.pulse,
            ),
        )
        #: Why what serves does not run as the owner wants it to, such as on a required provider; "" when it does.
        self.provider_trouble = ""

    # ── ports.Updates ─────────────────────────────────────────────────────────────────────────

    def follow(self, document: ChannelDocument) -> None:
        """Take a channel document; the thread looks at it soon."""
        self._offered.follow(document)
        self._wake.set()

    def status(self) -> UpdateStatus:
        """The present state."""
        at = self._store.position()
        return UpdateStatus(at.state, at.release, at.reason, at.rollout, at.attempt, at.since)

    def committed(self) -> str | None:
        """Digest of the last committed release."""
        found = self._store.committed()
        return found.release if found else None

    def previous(self) -> str | None:
        """Digest of the release that is kept for going back."""
        found = self._store.previous()
        return found.release if found else None

    def refused(self) -> dict[str, str]:
        """Releases that were refused for good, by digest, with the reason."""
        return {key.rpartition("/")[2]: reason for key, reason in self._store.refused().items()}

    @property
    def last_update_bytes(self) -> int:
        """Bytes that the latest update has fetched: index, manifest and files."""
        return self._store.position().bytes

    def go_back(self, reason: str) -> Future[Position]:
        """Leave what serves now for what served before it, because a person says so; returns at once.

        A release on probation is left for the committed one, a committed one for the release before it. What was left
        is not taken again before the channel has offered another release.

        Args:
            reason: a sentence for people.

        Returns:
            Where the machine stands then; `LookupError` when there is nothing to go back to.
        """
        at = self._store.position()
        leave = at.release if at.state == PROBATION else self.committed()
        outcome = self._asked.ask(leave, reason)
        self._wake.set()
        return outcome

    # ── life ──────────────────────────────────────────────────────────────────────────────────

    def report_to(self, reporter: Reporter) -> None:
        """Name who tells the hub about states."""
        self._reporter = reporter

    @property
    def settings(self) -> UpdateSettings:
        """The owner's, as they are now."""
        return self._settings

    def use(self, settings: UpdateSettings) -> None:
        """Go on with other settings; the data folder has to be the same."""
        self._settings = settings
        self._measured = False
        self._wake.set()

    def start(self) -> None:
        """Serve the committed release, then follow the channel on a thread.

        What was unproven when the agent stopped is rolled back here, before anything serves.
        """
        self._active.recover(self._settings.crash_loop)
        self.pulse.beat(IDLE_LOOK_S)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the thread, in order; a release on probation goes back at the next start. States can still be read."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        try:
            self._store.ends_in_order()
        except sqlite3.Error as error:  # the next start takes it for an unclean end, no more
            log.error("the end could not be written down", reason=str(error))

    def close(self) -> None:
        """Close the store, after `stop` and after the last report."""
        if not self._thread.is_alive():
            self._store.close()

    # ── the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception:  # a full disk under the database, or a fault of ours: neither may end the thread
                log.exception("the thread of updates could not go on; it tries again")
                self._failures += 1
                wait = rules.wait_s(self._failures, self._settings.chance)
                self.pulse.beat(wait)
                self._stop.wait(wait)

    def _turn(self) -> None:
        """What is to be done now: obey a person, go for what is offered, or rest."""
        self.pulse.beat(IDLE_LOOK_S)
        self._take_back()
        self._obey()
        if not self._measured and not self._hold(False):
            self._measured = True
            self._measure_again()
        offer = self._wanted()
        if offer is None:
            self._rest()
            return
        self._seen = (self._offered.document, self._settings)
        had = self._preparing.fetched_bytes
        try:
            self._update(offer)
            self._failures = 0
        except Transient as error:
            # A line that brings a part each time is slow, not dead: the wait does not grow then.
            self._failures = self._failures + 1 if self._preparing.fetched_bytes == had else 1
            self._pause(offer, error)
        except UpdateError as error:
            self._failures = 0
            self._roll_back(offer, error)
        except sqlite3.Error:  # no fault of the release
            raise
        except Exception as error:  # a fault of ours: the release is refused, the old one serves
            log.exception("an update failed for a reason of our own", release=offer.release)
            self._roll_back(offer, Refused(f"a fault of the agent: {type(error).__name__}: {error}"))

    def _take_back(self) -> None:
        """An update ended where not even that could be written: write it now."""
        at = self._store.position()
        if at.state in UNPROVEN:
            self._enter(ROLLED_BACK, f"the disk could not be written while the release was {at.state}")

    def _measure_again(self) -> None:
        """What was committed already serves; if hardware, driver or onnxruntime changed, find how it runs best now."""
        serving = self._active.loaded
        if serving is None:
            return
        self.pulse.beat(LONGEST_TEST_S)
        try:
            better = measure_again(serving, self._settings.tests, progress=self._preparing.progress)
        except Refused as error:
            self.provider_trouble = f"{error}; the committed release goes on on {serving.session.provider}"
            log.error("no provider does what the rules want", reason=self.provider_trouble)
        except Exception:  # a fault of ours must not end the thread: what serves goes on as it does
            log.exception("the committed release could not be measured again", release=serving.digest)
        else:
            self.provider_trouble = ""
            if better is not None:
                self._active.switch(better.loaded)
                reason = better.note or "it was measured for the first time"
                log.warning("the committed release runs differently now", reason=reason)
        if self._reporter is not None:
            self._reporter.report()

    def _rest(self) -> None:
        """Nothing to do: an update that was under way has been withdrawn. Sleep until there is, but not for ever."""
        if self._offered.document is not None and self._store.position().state in (FETCHING, VERIFYING):
            self._enter(IDLE, "the channel offers nothing else any more")
        if self._active.loaded is not None or self._store.committed() is None or self._active.serve_committed():
            self._failures = 0
            self._sleep(IDLE_LOOK_S)
        else:
            self._failures += 1
            self._sleep(rules.wait_s(self._failures, self._settings.chance))

    def _wanted(self) -> Offer | None:
        return self._offered.wanted(self._settings.device, serves=self._active.loaded is not None)

    def _update(self, offer: Offer) -> None:
        """The life cycle."""
        fetched = self._preparing.fetch(offer)
        self._preparing.verify(offer, fetched)
        self._enter(STAGED, f"{offer.name} {offer.version} is whole and audited")
        self._enter(TESTING, f"{offer.name} {offer.version} is tried on this device")
        loaded = self._preparing.test(offer, fetched)
        self.provider_trouble = ""
        self._enter(PROBATION, f"{offer.name} {offer.version} serves, and is watched")
        with self._served_on_probation(loaded) as before:
            self._watch(offer, before)
            self._commit(offer, loaded)
        self._active.collect()

    @contextmanager
    def _served_on_probation(self, loaded: LoadedRelease) -> Iterator[ServingCounters]:
        """A release serves; whatever goes wrong before it is committed, what is committed serves again.

        Gives the counters of what served before.
        """
        before = self._serving.counters()
        self._active.switch(loaded)
        try:
            yield before
        except Exception:
            if not self._stop.is_set():
                self._active.switch_back()
            raise

    def _watch(self, offer: Offer, before: ServingCounters) -> None:
        """Look at the release that serves until its probation has ended."""
        start, first = time.monotonic(), self._store.committed() is None
        probation = Probation(self._settings.probation, before=before, first=first)
        while True:
            self.pulse.beat(IDLE_LOOK_S)
            verdict = probation.look(self._serving.counters(), time.monotonic() - start)
            if verdict.reason:
                raise Refused(f"probation: {verdict.reason}")
            if verdict.done:
                return
            if (asked := self._asked.waiting) is not None:
                if asked.leave == offer.release:
                    raise LeftByHand(asked.reason)
                raise Withdrawn("a person asked to leave the committed release before this one served")
            if self._wanted() != offer:
                raise Withdrawn("the channel no longer offers the release")
            if self._stop.wait(PROBATION_LOOK_S):
                raise Transient("the agent stops")

    def _commit(self, offer: Offer, loaded: LoadedRelease) -> None:
        session = loaded.session
        installed = Installed(offer.release, session.variant, session.provider, offer.rollout, offer.target)
        reason = f"{offer.name} {offer.version} runs as {session.variant} on {session.provider}"
        self._tell(self._store.commit(installed, reason, self._clock()))

    # ── what goes wrong ───────────────────────────────────────────────────────────────────────

    def _pause(self, offer: Offer, error: Transient) -> None:
        """Wait and try again; a new channel document ends the wait."""
        if self._stop.is_set():
            return
        wait = rules.wait_s(self._failures, self._settings.chance, error.retry_after_s)
        if self._store.position().state in UNPROVEN:
            self._roll_back(offer, Refused(str(error)))
            return
        reason = f"{error}; trying again in {wait:.0f} s"
        self._tell(self._store.move(FETCHING, reason, self._clock(), fetched=self._preparing.fetched_bytes))
        log.warning("update waits", release=offer.release, reason=str(error), wait_s=round(wait, 1))
        self._sleep(wait)

    def _roll_back(self, offer: Offer, error: UpdateError) -> None:
        reason, now = str(error), self._clock()
        # A signed release is not to blame for who sends it, or says where it stands: it may be offered otherwise.
        turned_away = isinstance(error, Unvouched) or (isinstance(error, WrongBytes) and bool(offer.target))
        if turned_away:
            self._offered.turn_away(offer)
        if isinstance(error, Withdrawn) or turned_away:
            at = self._store.move(ROLLED_BACK, reason, now)
        elif isinstance(error, LeftByHand):
            at = self._store.leave(offer.release, ROLLED_BACK, reason, now)
        else:
            at = self._store.refuse([offer.key], ROLLED_BACK, reason, now)
        log.warning("rolled back", release=offer.release, reason=reason)
        self._tell(at)
        self._active.collect()

    def _obey(self) -> None:
        """Go back, when a person has asked for it."""
        asked = self._asked.take()
        if asked is None:
            return
        try:
            if asked.leave is None:
                raise LookupError("nothing serves that could be left")
            if asked.leave == self.committed():
                at = self._active.go_back(asked.reason, by_hand=True)
                log.warning("rolled back", release=at.release, reason=at.reason)
                self._tell(at)
                self._active.collect()
            asked.outcome.set_result(self._store.position())
        except Exception as error:  # it is told to the person who asked; the thread goes on
            asked.outcome.set_exception(error)

    # ── small steps ───────────────────────────────────────────────────────────────────────────

    def _interrupted(self, wait_s: float, offer: Offer) -> bool:
        """Wait, and say whether something else has come up meanwhile."""
        end = time.monotonic() + wait_s
        document, settings = self._seen
        while True:
            self.pulse.beat(IDLE_LOOK_S + SILENCE_S)
            if self._stop.is_set() or self._asked.waiting is not None or self._settings is not settings:
                return True
            if self._offered.document is not document and self._wanted() != offer:
                return True
            if (left := end - time.monotonic()) <= 0:
                return False
            if self._wake.wait(min(left, IDLE_LOOK_S)):
                self._wake.clear()

    def _sleep(self, seconds: float) -> None:
        """Until something is to be done, or so long; a thread that sleeps shows that it lives."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.pulse.beat(IDLE_LOOK_S)
            self._active.settle(self._settings.crash_loop)
            if self._wake.wait(min(left, IDLE_LOOK_S)):
                self._wake.clear()
                return

    def _enter(self, state: str, reason: str) -> None:
        self._tell(self._store.move(state, reason, self._clock()))

    def _tell(self, at: Position) -> None:
        log.info("update", state=at.state, release=at.release, reason=at.reason)
        if self._reporter is not None:
            self._reporter.report()
