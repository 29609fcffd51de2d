"""What others want of the thread of updates: a release, other settings, to go back, to stop; and the waits they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from edge_agent.pulse import Pulse
from edge_agent.updates.asking import Asked
from edge_agent.updates.offered import Offered
from edge_agent.updates.preparing import SILENCE_S
from edge_agent.updates.rules import Offer
from edge_agent.updates.settings import UpdateSettings
from edge_agent.updates.store import Position, UpdateStore

if TYPE_CHECKING:
    from edgeloop.protocol import ChannelDocument

#: How often a thread with nothing to do shows that it lives, seconds.
IDLE_LOOK_S = 10.0


class Wishes:
    """Wishes come from any thread; only the thread of updates waits for them.

    Attributes:
        settings: the owner's, as they are now.
        offered: what the channel offers.
        asked: whether a person wants to leave a release.
        pulse: shows that the thread lives.
    """

    def __init__(self, settings: UpdateSettings, store: UpdateStore, serves: Callable[[], bool]) -> None:
        """Nothing is wanted yet.

        Args:
            settings: the owner's.
            store: what was committed, refused and left.
            serves: whether any release does.
        """
        self.settings = settings
        self.offered, self.asked = Offered(store), Asked()
        self.pulse = Pulse("updates")
        self._serves = serves
        self._wake, self._stop = threading.Event(), threading.Event()
        self._seen: tuple[ChannelDocument | None, UpdateSettings] = (None, settings)

    # ── from any thread ───────────────────────────────────────────────────────────────────────

    def follow(self, document: ChannelDocument) -> None:
        """Take a channel document."""
        self.offered.follow(document)
        self._wake.set()

    def use(self, settings: UpdateSettings) -> None:
        """Go on with other settings."""
        self.settings = settings
        self._wake.set()

    def go_back(self, leave: str | None, reason: str) -> Future[Position]:
        """Leave a release, because a person says so."""
        outcome = self.asked.ask(leave, reason)
        self._wake.set()
        return outcome

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._wake.set()

    @property
    def stopping(self) -> bool:
        """Whether the thread is to end."""
        return self._stop.is_set()

    # ── for the thread of updates ─────────────────────────────────────────────────────────────

    def offer(self) -> Offer | None:
        """What to go for, or None."""
        return self.offered.wanted(self.settings.device, serves=self._serves())

    def take_offer(self) -> Offer | None:
        """The same; what comes from now on interrupts it."""
        self._seen = self.offered.document, self.settings
        return self.offer()

    def turn_away(self, offer: Offer) -> None:
        """Do not go for an offer again before another document has come than the one that it was taken from."""
        document, _ = self._seen
        if document is not None:
            self.offered.turn_away(document, offer)

    def interrupted(self, wait_s: float, offer: Offer) -> bool:
        """Wait, and say whether something else has come up meanwhile."""
        end = time.monotonic() + wait_s
        document, settings = self._seen
        while True:
            self.pulse.beat(IDLE_LOOK_S + SILENCE_S)
            if self.stopping or self.asked.waiting is not None or self.settings is not settings:
                return True
            if self.offered.document is not document and self.offer() != offer:
                return True
            if (left := end - time.monotonic()) <= 0:
                return False
            if self._wake.wait(min(left, IDLE_LOOK_S)):
                self._wake.clear()

    def sleep(self, seconds: float, meanwhile: Callable[[], None]) -> None:
        """Wait until something is to be done, or so long; now and then do something meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.pulse.beat(IDLE_LOOK_S)
            meanwhile()
            if self._wake.wait(min(left, IDLE_LOOK_S)):
                self._wake.clear()
                return

    def stopped(self, within_s: float) -> bool:
        """Wait for the end alone; whether it has come."""
        self.pulse.beat(max(within_s, IDLE_LOOK_S))
        return self._stop.wait(within_s)
