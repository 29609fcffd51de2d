"""The life cycle of an update, by the table in `rules`: every state is stored before it is acted on, and reported.

The main verb, `LifeCycle.update`, reads as the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_agent.logs import Log
from edge_agent.ports import LoadedRelease, Serving, ServingCounters
from edge_agent.updates.active import Active
from edge_agent.updates.errors import LeftByHand, Refused, Transient, Unvouched, UpdateError, Withdrawn, WrongBytes
from edge_agent.updates.preparing import Preparing
from edge_agent.updates.probation import Probation
from edge_agent.updates.rules import FETCHING, IDLE, PROBATION, ROLLED_BACK, STAGED, TESTING, UNPROVEN, VERIFYING, Offer
from edge_agent.updates.store import Installed, Position, UpdateStore
from edge_agent.updates.wishes import Wishes

log = Log(__name__)

#: How often a release on probation is looked at, seconds.
PROBATION_LOOK_S = 0.1


class LifeCycle:
    """Brings offers from fetching to committed, or back. Only the thread of updates uses it."""

    def __init__(
        self,
        store: UpdateStore,
        preparing: Preparing,
        active: Active,
        serving: Serving,
        wishes: Wishes,
        *,
        tell: Callable[[Position], None],
        clock: Callable[[], float],
    ) -> None:
        """Join the parts.

        Args:
            store: where states are kept.
            preparing: the steps before probation.
            active: what serves.
            serving: who counts answers.
            wishes: what others want meanwhile.
            tell: told of every new position.
            clock: unix seconds; only written down.
        """
        self._store, self._preparing, self._active, self._serving = store, preparing, active, serving
        self._wishes, self._tell, self._clock = wishes, tell, clock

    def update(self, offer: Offer) -> None:
        """Fetch a release, audit it, test it, serve it on probation, commit it.

        Raises:
            Transient: it may pass: `put_off`.
            UpdateError: otherwise: `roll_back`.
        """
        fetched = self._preparing.fetch(offer)
        self._preparing.verify(offer, fetched)
        self._enter(STAGED, f"{offer.name} {offer.version} is whole and audited")
        self._enter(TESTING, f"{offer.name} {offer.version} is tried on this device")
        loaded = self._preparing.test(offer, fetched)
        self._enter(PROBATION, f"{offer.name} {offer.version} serves, and is watched")
        with self._served_on_probation(loaded) as before:
            self._watch(offer, before)
            self._commit(offer, loaded)
        self._active.collect()

    def put_off(self, offer: Offer, error: Transient, wait_s: float) -> bool:
        """Say that an update waits; False when it cannot, since its release was being tried: that is rolled back."""
        if self._store.position().state in UNPROVEN:
            self.roll_back(offer, Refused(str(error)))
            return False
        reason = f"{error}; trying again in {wait_s:.0f} s"
        self._tell(self._store.move(FETCHING, reason, self._clock(), fetched=self._preparing.fetched_bytes))
        log.warning("update waits", release=offer.release, reason=str(error), wait_s=round(wait_s, 1))
        return True

    def roll_back(self, offer: Offer, error: UpdateError) -> None:
        """Give an offer up, for good where its release is to blame."""
        reason, now = str(error), self._clock()
        # A signed release is not to blame for who sends it, or says where it stands: it may be offered otherwise.
        turned_away = isinstance(error, Unvouched) or (isinstance(error, WrongBytes) and bool(offer.target))
        if turned_away:
            self._wishes.turn_away(offer)
        if isinstance(error, Withdrawn) or turned_away:
            at = self._store.move(ROLLED_BACK, reason, now)
        elif isinstance(error, LeftByHand):
            at = self._store.leave(offer.release, ROLLED_BACK, reason, now)
        else:
            at = self._store.refuse([offer.key], ROLLED_BACK, reason, now)
        log.warning("rolled back", release=offer.release, reason=reason)
        self._tell(at)
        self._active.collect()

    def take_back(self) -> None:
        """An update may have ended where not even that could be written: write it now."""
        at = self._store.position()
        if at.state in UNPROVEN:
            self._enter(ROLLED_BACK, f"the disk could not be written while the release was {at.state}")

    def withdraw(self) -> None:
        """Nothing is offered any more: an update that was under way has ended."""
        if self._store.position().state in (FETCHING, VERIFYING):
            self._enter(IDLE, "the channel offers nothing else any more")

    @contextmanager
    def _served_on_probation(self, loaded: LoadedRelease) -> Iterator[ServingCounters]:
        """A release serves; whatever goes wrong before it is committed, what is committed serves again.

        Gives the counters of what served before.
        """
        before = self._serving.counters()
        self._active.serve_tested(loaded)
        try:
            yield before
        except Exception:
            if not self._wishes.stopping:
                self._active.switch_back()
            raise

    def _watch(self, offer: Offer, before: ServingCounters) -> None:
        """Look at the release that serves until its probation has ended."""
        wishes, start, first = self._wishes, time.monotonic(), self._store.committed() is None
        probation = Probation(wishes.settings.probation, before=before, first=first)
        while True:
            verdict = probation.look(self._serving.counters(), time.monotonic() - start)
            if verdict.reason:
                raise Refused(f"probation: {verdict.reason}")
            if verdict.done:
                return
            if (asked := wishes.asked.waiting) is not None:
                if asked.leave == offer.release:
                    raise LeftByHand(asked.reason)
                raise Withdrawn("a person asked to leave the committed release before this one served")
            if wishes.offer() != offer:
                raise Withdrawn("the channel no longer offers the release")
            if wishes.stopped(PROBATION_LOOK_S):
                raise Transient("the agent stops")

    def _commit(self, offer: Offer, loaded: LoadedRelease) -> None:
        session = loaded.session
        installed = Installed(offer.release, session.variant, session.provider, offer.rollout, offer.target)
        reason = f"{offer.name} {offer.version} runs as {session.variant} on {session.provider}"
        self._tell(self._store.commit(installed, reason, self._clock()))

    def _enter(self, state: str, reason: str) -> None:
        self._tell(self._store.move(state, reason, self._clock()))
