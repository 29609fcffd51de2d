"""What the channel offers this device, and what is wanted of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.updates import rules
from edge_agent.updates.rules import Offer
from edge_agent.updates.store import UpdateStore

if TYPE_CHECKING:
    from edgeloop.protocol import ChannelDocument


class Offered:
    """The latest channel document, beside what the device has committed, refused and left."""

    def __init__(self, store: UpdateStore) -> None:
        """Nothing is offered yet.

        Args:
            store: what was committed, refused and left.
        """
        self._store = store
        self._document: ChannelDocument | None = None
        self._turned_away: tuple[ChannelDocument, Offer] | None = None

    @property
    def document(self) -> ChannelDocument | None:
        """The latest, or None."""
        return self._document

    def follow(self, document: ChannelDocument) -> None:
        """Take a document in place of the one before."""
        self._document = document

    def turn_away(self, document: ChannelDocument, offer: Offer) -> None:
        """Do not go for an offer before there is another document than the one that made it."""
        self._turned_away = document, offer

    def wanted(self, device: str, *, serves: bool) -> Offer | None:
        """What to go for, or None when there is nothing to do.

        Args:
            device: its name, by which a rollout chooses it.
            serves: whether anything does. When nothing does, the committed release cannot be loaded: it is wanted anew.
        """
        document = self.document
        if document is None:
            return None
        offered, rollout = document.release_for(device), document.rollout
        left, committed = self._store.left(), self._store.committed()
        if left is not None and offered is not None and offered.digest != left:
            self._store.forget_left()
            left = None
        offer = rules.wanted(
            offered,
            in_rollout=rollout.id if rollout is not None and offered == rollout.candidate else None,
            hub=document.hub,
            committed=committed.release if committed is not None and serves else None,
            left=left,
            refused=self._store.refused().keys(),
        )
        return None if self._turned_away is not None and self._turned_away == (document, offer) else offer
