"""The board: requests whose rows were sent to the teacher, and the clients that wait for them."""

from __future__ import annotations

from collections import OrderedDict

from edge_agent.escalating.asked import Asked

#: Requests whose better answers clients may ask for; the oldest are forgotten.
MOST_KEPT = 4096
#: Clients that wait at once; each takes a connection, or a thread of the gRPC door.
MOST_WAITING = 32
#: While clients wait, so often it is looked whether the broker is still there, seconds.
LOOK_S = 0.05


class Board:
    """Requests by the id of their prediction. Its owner's lock guards it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Asked] = OrderedDict()
        self._waiting: set[Asked] = set()

    def __contains__(self, prediction_id: str) -> bool:
        """Whether a request is kept; without the lock, since a moment later is as good."""
        return prediction_id in self._kept

    def add(self, asked: Asked) -> None:
        """Keep a request; its client may wait."""
        self._kept[asked.id] = asked
        self._kept.move_to_end(asked.id)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        if asked.waits:
            self._waiting.add(asked)

    def find(self, prediction_id: str) -> Asked | None:
        """The request, or None: it is not kept, or not any more."""
        return self._kept.get(prediction_id)

    @property
    def waiting(self) -> int:
        """Clients that wait."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether one more client may wait."""
        return len(self._waiting) < MOST_WAITING

    def done(self, asked: Asked) -> None:
        """Its client waits no more."""
        self._waiting.discard(asked)

    def patience_s(self, moment: float) -> float | None:
        """Seconds until somebody has to look after the clients; None: nobody waits."""
        if not self._waiting:
            return None
        return max(0.0, min(min(asked.until for asked in self._waiting) - moment, LOOK_S))

    def late(self, moment: float) -> list[Asked]:
        """Clients that have waited long enough by then, monotonic seconds."""
        return [asked for asked in self._waiting if asked.until <= moment]

    def everybody(self) -> list[Asked]:
        """All clients that wait."""
        return list(self._waiting)
