"""The update machine: one thread that brings the device to the release that its channel offers.

What is wanted of it is in `wishes`, how one update goes in `life_cycle`, what serves in `active`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from edge_agent.logs import Log
from edge_agent.ports import Reporter, Serving, Trust, UpdateStatus
from edge_agent.trust.open import OpenTrust
from edge_agent.updates import rules
from edge_agent.updates.active import Active
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.disk import Disk
from edge_agent.updates.errors import Refused, Transient, UpdateError
from edge_agent.updates.life_cycle import LifeCycle
from edge_agent.updates.preparing import LONGEST_TEST_S, Preparing, Surroundings
from edge_agent.updates.rules import PROBATION, Offer
from edge_agent.updates.settings import UpdateSettings
from edge_agent.updates.store import Position, UpdateStore
from edge_agent.updates.wishes import IDLE_LOOK_S, Wishes

if TYPE_CHECKING:
    from edgeloop.protocol import ChannelDocument

log = Log(__name__)


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
        self._reporter, self._hold = reporter, hold
        self._store = store or UpdateStore(settings.data / "updates.db", disk)
        files = ReleaseFiles(settings.data, disk)
        self._wishes = wishes = Wishes(settings, self._store, serves=lambda: self._active.loaded is not None)
        #: Shows that the thread lives.
        self.pulse = wishes.pulse
        self._active = Active(
            self._store,
            files,
            serving,
            tests=lambda: wishes.settings.tests,
            tell=self._tell,
            progress=lambda text: self._preparing.progress(text),  # noqa: PLW0108  # made below
            clock=clock,
        )
        self._preparing = Preparing(
            self._store,
            files,
            Surroundings(
                settings=lambda: wishes.settings,
                tell=self._tell,
                clock=clock,
                trust=trust or OpenTrust(),
                hold=lambda: hold(self._active.loaded is None),
                interrupted=wishes.interrupted,
                make_room=self._active.collect,
                slow=slow,
                pulse=self.pulse,
            ),
        )
        self._cycle = LifeCycle(
            self._store, self._preparing, self._active, serving, wishes, tell=self._tell, clock=clock
        )
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)

    # ── ports.Updates ─────────────────────────────────────────────────────────────────────────

    def follow(self, document: ChannelDocument) -> None:
        """Take a channel document; the thread looks at it soon."""
        self._wishes.follow(document)

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
        return self._wishes.go_back(leave, reason)

    @property
    def provider_trouble(self) -> str:
        """Why what serves does not run as the owner wants it to, such as on a required provider; "" when it does."""
        return self._active.trouble

    # ── life ──────────────────────────────────────────────────────────────────────────────────

    def report_to(self, reporter: Reporter) -> None:
        """Name who tells the hub about states."""
        self._reporter = reporter

    @property
    def settings(self) -> UpdateSettings:
        """The owner's, as they are now."""
        return self._wishes.settings

    def use(self, settings: UpdateSettings) -> None:
        """Go on with other settings; the data folder has to be the same."""
        self._active.unmeasured = True
        self._wishes.use(settings)

    def start(self) -> None:
        """Serve the committed release, then follow the channel on a thread.

        What was unproven when the agent stopped is rolled back here, before anything serves.
        """
        self._active.recover(self.settings.crash_loop)
        self.pulse.beat(IDLE_LOOK_S)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the thread, in order; a release on probation goes back at the next start. States can still be read."""
        self._wishes.stop()
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
        while not self._wishes.stopping:
            try:
                self._turn()
            except Exception:  # a full disk under the database, or a fault of ours: neither may end the thread
                log.exception("the thread of updates could not go on; it tries again")
                self._failures += 1
                self._wishes.stopped(rules.wait_s(self._failures, self.settings.chance))

    def _turn(self) -> None:
        """What is to be done now: obey a person, go for what is offered, or rest."""
        self.pulse.beat(IDLE_LOOK_S)
        self._cycle.take_back()
        self._obey()
        if self._active.unmeasured and not self._hold(False):
            self.pulse.beat(LONGEST_TEST_S)
            self._active.measure_again()
            self._report()
        offer = self._wishes.take_offer()
        if offer is None:
            self._rest()
            return
        had = self._preparing.fetched_bytes
        try:
            self._cycle.update(offer)
            self._failures = 0
        except Transient as error:
            # A line that brings a part each time is slow, not dead: the wait does not grow then.
            self._failures = self._failures + 1 if self._preparing.fetched_bytes == had else 1
            self._pause(offer, error)
        except UpdateError as error:
            self._failures = 0
            self._cycle.roll_back(offer, error)
        except sqlite3.Error:  # no fault of the release
            raise
        except Exception as error:  # a fault of ours: the release is refused, the old one serves
            log.exception("an update failed for a reason of our own", release=offer.release)
            self._cycle.roll_back(offer, Refused(f"a fault of the agent: {type(error).__name__}: {error}"))

    def _pause(self, offer: Offer, error: Transient) -> None:
        """Wait and try again; a new channel document ends the wait."""
        if self._wishes.stopping:
            return
        wait = rules.wait_s(self._failures, self.settings.chance, error.retry_after_s)
        if self._cycle.put_off(offer, error, wait):
            self._wishes.sleep(wait, self._settle)

    def _rest(self) -> None:
        """Nothing to do: sleep until there is, but not for ever."""
        if self._wishes.offered.document is not None:
            self._cycle.withdraw()
        if self._active.loaded is not None or self._store.committed() is None or self._active.serve_committed():
            self._failures = 0
            self._wishes.sleep(IDLE_LOOK_S, self._settle)
        else:
            self._failures += 1
            self._wishes.sleep(rules.wait_s(self._failures, self.settings.chance), self._settle)

    def _obey(self) -> None:
        """Go back, when a person has asked for it."""
        asked = self._wishes.asked.take()
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

    def _settle(self) -> None:
        self._active.settle(self.settings.crash_loop)

    def _tell(self, at: Position) -> None:
        log.info("update", state=at.state, release=at.release, reason=at.reason)
        self._report()

    def _report(self) -> None:
        if self._reporter is not None:
            self._reporter.report()
