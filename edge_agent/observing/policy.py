"""The policy that windows follow: what the channel's owner asks for, within what the device's owner allows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from edge_agent.observing.store import Store
from edgeloop.insights.policy import KEY, InsightsPolicy, Limits
from edgeloop.protocol import ProtocolError, decode, encode

log = logging.getLogger(__name__)

_NOTE = "policy/insights"


class PolicyInForce:
    """What is in force now; the store remembers what was asked for last, so that a restart without a hub keeps to it.

    Attributes:
        current: read it anew for each decision: it changes while the agent runs.

    Args:
        store: the device's database.
        limits: of the device's owner.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._limits = limits
        self._asked = self._remembered()
        self._followers: list[Callable[[InsightsPolicy], None]] = []
        self.current = self._asked.within(limits)

    def follow(self, follower: Callable[[InsightsPolicy], None]) -> None:
        """Call ``follower`` now and whenever the policy has changed."""
        self._followers.append(follower)
        follower(self.current)

    def take(self, asked: Any) -> None:
        """Follow another policy from now on.

        Args:
            asked: ``InsightsPolicy.to_wire()``, as the channel document has it.

        Raises:
            ProtocolError: it is no policy; the present one stays.
            StoreError: it cannot be remembered; the present one stays, and the next document brings it again.
        """
        policy = InsightsPolicy.from_wire(asked, f"policy.{KEY}")
        with self._lock:
            if policy == self._asked:
                return
            self._store.set_note(_NOTE, encode(policy.to_wire()))
            self._asked = policy
            self._change()
        log.info("the channel's policy of insights has changed")

    def limit(self, limits: Limits) -> None:
        """The device's owner allows something else from now on."""
        with self._lock:
            self._limits = limits
            self._change()

    def _change(self) -> None:
        self.current = self._asked.within(self._limits)
        for follower in self._followers:
            follower(self.current)

    def _remembered(self) -> InsightsPolicy:
        found = self._store.note(_NOTE)
        if found is None:
            return InsightsPolicy()
        try:
            return InsightsPolicy.from_wire(decode(found))
        except ProtocolError as error:  # of an agent that reads more, for example
            log.warning("the remembered policy cannot be read (%s); the hub's next document brings it again", error)
            return InsightsPolicy()
