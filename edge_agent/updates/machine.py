"""The update machine: one thread that brings the device to the release that its channel offers.

The table is in `rules`; the main verb, `_update`, reads as the life cycle. Every state is stored before it is acted on,
and reported.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.logs import Log
from edge_agent.ports import LoadedRelease, Reporter, Serving, UpdateStatus
from edge_agent.updates import rules
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.errors import Refused, Transient, UpdateError, Withdrawn
from edge_agent.updates.fetch import Fetched, Fetcher, FetchLimits
from edge_agent.updates.probation import ProbationRules, judge
from edge_agent.updates.rules import FETCHING, IDLE, PROBATION, ROLLED_BACK, STAGED, TESTING, VERIFYING, Offer
from edge_agent.updates.store import Installed, Position, UpdateStore
from edge_agent.updates.testing import TestingRules, load_installed, load_tested
from edgeloop.package import PackageError, audit_in_child
from edgeloop.protocol import ChannelDocument
from edgeloop.runtime import Trial, available_providers

log = Log(__name__)

#: How often a release on probation is looked at, seconds.
PROBATION_LOOK_S = 0.1


@dataclass(frozen=True)
class UpdateSettings:
    """What the owner of the device decides about updates."""

    data: Path
    device: str
    hub: str
    limits: FetchLimits
    tests: TestingRules
    probation: ProbationRules
    audit_timeout_s: float = 120.0
    chance: random.Random = field(default_factory=random.Random)


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
    ) -> None:
        """Open what was stored; nothing runs before `start`.

        Args:
            settings: the owner's.
            serving: who answers requests.
            reporter: who tells the hub; may be set later with `report_to`.
            clock: unix seconds; only written down, never waited by.
            store: where states are kept; None: ``updates.db`` in the data folder.
        """
        self._settings, self._serving, self._reporter, self._clock = settings, serving, reporter, clock
        self._store = store or UpdateStore(settings.data / "updates.db")
        self._files = ReleaseFiles(settings.data)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._document: ChannelDocument | None = None
        self._loaded: LoadedRelease | None = None
        self._failures = 0
        self._fetched = 0
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)
        #: Candidates of the latest test: what was tried on this device and how it did.
        self.trials: tuple[Trial, ...] = ()

    # ── ports.Updates ─────────────────────────────────────────────────────────────────────────

    def follow(self, document: ChannelDocument) -> None:
        """Take a channel document; the thread looks at it soon."""
        self._document = document
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

    @property
    def last_update_bytes(self) -> int:
        """Bytes that the latest update has fetched: index, manifest and files."""
        return self._store.position().bytes

    # ── life ──────────────────────────────────────────────────────────────────────────────────

    def report_to(self, reporter: Reporter) -> None:
        """Name who tells the hub about states."""
        self._reporter = reporter

    def start(self) -> None:
        """Serve the committed release, then follow the channel on a thread.

        What was unproven when the agent stopped is rolled back here, before anything serves.
        """
        self._recover()
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the thread; a release on probation goes back at the next start. States can still be read."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def close(self) -> None:
        """Close the store, after `stop` and after the last report."""
        if not self._thread.is_alive():
            self._store.close()

    def _recover(self) -> None:
        at = self._store.position()
        if rules.restart_state(at.state) == ROLLED_BACK and at.release is not None:
            reason = f"the agent restarted while the release was {at.state} (attempt {at.attempt})"
            if at.attempt >= rules.MOST_RESTARTS:
                key = Offer(at.release, "", "", at.rollout, "").key
                self._tell(self._store.refuse(key, ROLLED_BACK, f"{reason}; it is not tried again", self._clock()))
            else:
                self._enter(ROLLED_BACK, reason)
        for installed in (self._store.committed(), self._store.previous()):
            if installed is not None and self._serve_installed(installed):
                return

    def _serve_installed(self, installed: Installed) -> bool:
        index = self._files.index(installed.release)
        try:
            if index is None:
                raise Refused("its index is damaged or gone")
            folder = self._files.folder(installed.release)
            loaded = load_installed(folder, index, installed, self._settings.tests)
        except Refused as error:
            log.error("a committed release can no longer be loaded", release=installed.release, reason=str(error))
            return False
        if self.committed() != installed.release:
            reason = "the committed release could not be loaded; the one before it serves"
            self._tell(self._store.fall_back(installed, reason, self._clock()))
        self._switch(loaded)
        log.info("serving", release=installed.release, variant=installed.variant, provider=installed.provider)
        return True

    # ── the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._stop.is_set():
            offer = self._wanted()
            if offer is None:
                self._failures = 0
                self._rest()
                self._wake.wait()
                self._wake.clear()
                continue
            had = self._fetched
            try:
                self._update(offer)
                self._failures = 0
            except Transient as error:
                # A line that brings a part each time is slow, not dead: the wait does not grow then.
                self._failures = self._failures + 1 if self._fetched == had else 1
                self._pause(offer, error)
            except UpdateError as error:
                self._failures = 0
                self._roll_back(offer, error)
            except (
                Exception
            ) as error:  # a fault of ours must not end the thread: the release is refused, the old serves
                log.exception("an update failed for a reason of our own", release=offer.release)
                self._roll_back(offer, Refused(f"a fault of the agent: {type(error).__name__}: {error}"))

    def _rest(self) -> None:
        """Nothing to do: an update that was under way has been withdrawn."""
        if self._store.position().state in (FETCHING, VERIFYING):
            self._enter(IDLE, "the channel offers nothing else any more")

    def _wanted(self) -> Offer | None:
        document = self._document
        if document is None:
            return None
        offered = document.release_for(self._settings.device)
        rollout = document.rollout
        in_rollout = rollout.id if rollout is not None and offered == rollout.candidate else None
        return rules.wanted(
            offered,
            in_rollout=in_rollout,
            hub=document.hub,
            committed=self.committed(),
            refused=self._store.refused().keys(),
        )

    def _update(self, offer: Offer) -> None:
        """The life cycle."""
        fetched = self._fetch(offer)
        self._verify(offer, fetched)
        self._enter(STAGED, f"{offer.name} {offer.version} is whole and audited")
        self._enter(TESTING, f"{offer.name} {offer.version} is tried on this device")
        loaded = self._test(offer, fetched)
        self._enter(PROBATION, f"{offer.name} {offer.version} serves, and is watched")
        self._watch(offer, loaded)
        self._commit(offer, loaded)

    def _fetch(self, offer: Offer) -> Fetched:
        at = self._store.begin(offer, FETCHING, f"fetching {offer.name} {offer.version}", self._clock())
        self._fetched = at.bytes
        self._tell(at)
        tests = self._settings.tests
        with Fetcher(
            self._files,
            self._settings.limits,
            hub=self._settings.hub,
            providers=available_providers(),
            required=tests.required_providers,
            received=self._count_bytes,
            stopped=lambda: self._stop.is_set() or self._wanted() != offer,
        ) as fetcher:
            return fetcher.fetch(offer)

    def _count_bytes(self, count: int) -> None:
        self._fetched += count

    def _verify(self, offer: Offer, fetched: Fetched) -> None:
        reason = f"checking every byte of {offer.name} {offer.version}"
        self._tell(self._store.move(VERIFYING, reason, self._clock(), fetched=self._fetched))
        try:
            folder = self._files.assemble(offer.release, fetched.entries)
        except OSError as error:
            raise Transient(f"the release cannot be put together: {error}") from error
        try:
            audit_in_child(
                folder,
                index=fetched.index,
                variants=fetched.variants,
                allow_hard_links=True,
                timeout_s=self._settings.audit_timeout_s,
            )
        except PackageError as error:
            self._files.drop(fetched.entries)
            raise Refused(f"audit: {error}") from error

    def _test(self, offer: Offer, fetched: Fetched) -> LoadedRelease:
        folder = self._files.folder(offer.release)
        tested = load_tested(folder, fetched.index, self._settings.tests, variants=fetched.variants)
        self.trials = tested.table
        return tested.loaded

    def _watch(self, offer: Offer, loaded: LoadedRelease) -> None:
        """Switch, and look at the release until its probation has ended."""
        before, old = self._serving.counters(), self._loaded
        mean = before.latency_ns / before.predictions if before.predictions else None
        self._switch(loaded)
        start = time.monotonic()
        first = self._store.committed() is None
        try:
            while True:
                elapsed = time.monotonic() - start
                counters = self._serving.counters()
                verdict = judge(self._settings.probation, counters, elapsed, previous_mean_ns=mean, first=first)
                if verdict.reason:
                    raise Refused(f"probation: {verdict.reason}")
                if verdict.done:
                    return
                if self._wanted() != offer:
                    raise Withdrawn("the channel no longer offers the release")
                if self._stop.wait(PROBATION_LOOK_S):
                    raise Transient("the agent stops")
        except UpdateError:
            self._switch_back(old)
            raise

    def _switch_back(self, old: LoadedRelease | None) -> None:
        """Serve what served before; its session was closed by the switch, so it is loaded again."""
        if self._stop.is_set():
            return
        installed = self._store.committed()
        if old is None or installed is None or not self._serve_installed(installed):
            self._switch(None)

    def _commit(self, offer: Offer, loaded: LoadedRelease) -> None:
        session = loaded.session
        installed = Installed(offer.release, session.variant, session.provider)
        reason = f"{offer.name} {offer.version} runs as {session.variant} on {session.provider}"
        self._tell(self._store.commit(installed, reason, self._clock()))
        self._collect()

    # ── what goes wrong ───────────────────────────────────────────────────────────────────────

    def _pause(self, offer: Offer, error: Transient) -> None:
        """Wait and try again; a new channel document ends the wait."""
        if self._stop.is_set():
            return
        wait = rules.wait_s(self._failures, self._settings.chance)
        at = self._store.position()
        if at.state in rules.UNPROVEN:
            self._roll_back(offer, Refused(str(error)))
            return
        reason = f"{error}; trying again in {wait:.0f} s"
        self._tell(self._store.move(FETCHING, reason, self._clock(), fetched=self._fetched))
        log.warning("update waits", release=offer.release, reason=str(error), wait_s=round(wait, 1))
        if self._wake.wait(wait):
            self._wake.clear()

    def _roll_back(self, offer: Offer, error: UpdateError) -> None:
        reason = str(error)
        if isinstance(error, Withdrawn):
            at = self._store.move(ROLLED_BACK, reason, self._clock())
        else:
            at = self._store.refuse(offer.key, ROLLED_BACK, reason, self._clock())
        log.warning("rolled back", release=offer.release, reason=reason)
        self._tell(at)
        self._collect()

    # ── small steps ───────────────────────────────────────────────────────────────────────────

    def _enter(self, state: str, reason: str) -> None:
        self._tell(self._store.move(state, reason, self._clock()))

    def _tell(self, at: Position) -> None:
        log.info("update", state=at.state, release=at.release, reason=at.reason)
        if self._reporter is not None:
            self._reporter.report()

    def _switch(self, loaded: LoadedRelease | None) -> None:
        self._serving.switch(loaded)
        self._loaded = loaded

    def _collect(self) -> None:
        keep = [found.release for found in (self._store.committed(), self._store.previous()) if found is not None]
        try:
            self._files.collect(keep)
        except OSError as error:
            log.warning("old releases could not be removed", reason=str(error))
