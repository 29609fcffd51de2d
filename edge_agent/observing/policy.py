"""Policies in force: what the channel's owner asks of a device, within what the device's owner allows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, Self, TypeVar

from edge_agent.observing.store import Store
from edgeloop.protocol import ProtocolError, decode, encode

log = logging.getLogger(__name__)


L_contra = TypeVar("L_contra", contravariant=True)


class Policy(Protocol[L_contra]):
    """A part of a channel document's ``policy``; its defaults ask for nothing."""

    @classmethod
    def from_wire(cls, value: Any, where: str = "") -> Self:
        """Read it; raises ProtocolError."""

    def to_wire(self, where: str = "") -> dict[str, Any]:
        """As the channel document has it."""

    def check(self) -> Self:
        """Itself; raises ProtocolError for words that this version does not know."""

    def within(self, limits: L_contra) -> Self:
        """As the owner lets it be."""


P = TypeVar("P", bound=Policy[Any])
L = TypeVar("L")


class PolicyInForce(Generic[P, L]):
    """What is in force now; the store remembers what was asked for last, so that a restart without a hub keeps to it.

    Attributes:
        current: read it anew for each decision: it changes while the agent runs.

    Args:
        store: the device's database.
        limits: of the device's owner.
        kind: of the policy.
        key: the subject's in ``ChannelDocument.policy``.
    """

    def __init__(self, store: Store, limits: L, kind: type[P], key: str) -> None:
        self._store, self._kind, self._key = store, kind, key
        self._lock = threading.Lock()
        self._limits = limits
        self._asked = self._remembered()
        self._followers: list[Callable[[P], None]] = []
        self.current: P = self._asked.within(limits)

    def follow(self, follower: Callable[[P], None]) -> None:
        """Call ``follower`` now and whenever the policy has changed."""
        self._followers.append(follower)
        follower(self.current)

    def take(self, asked: Any) -> None:
        """Follow another policy from now on.

        Args:
            asked: what the policy's ``to_wire`` gives, as the channel document has it.

        Raises:
            ProtocolError: it is no policy; the present one stays.
            StoreError: it cannot be remembered; the present one stays, and the next document brings it again.
        """
        policy = self._kind.from_wire(asked, f"policy.{self._key}").check()
        with self._lock:
            if policy == self._asked:
                return
            self._store.set_note(self._note, encode(policy.to_wire()))
            self._asked = policy
            self._change()
        log.info("the channel's policy of %s has changed", self._key)

    def limit(self, limits: L) -> None:
        """The device's owner allows something else from now on."""
        with self._lock:
            self._limits = limits
            self._change()

    def _change(self) -> None:
        self.current = self._asked.within(self._limits)
        for follower in self._followers:
            follower(self.current)

    @property
    def _note(self) -> str:
        return f"policy/{self._key}"

    def _remembered(self) -> P:
        found = self._store.note(self._note)
        if found is None:
            return self._kind()
        try:
            return self._kind.from_wire(decode(found)).check()
        except ProtocolError as error:  # of an agent that reads more, for example
            log.warning("the remembered policy cannot be read (%s); the hub's next document brings it again", error)
            return self._kind()
