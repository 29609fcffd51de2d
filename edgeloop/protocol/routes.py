"""Which handlers a topic is for. A device sends on the same topic for ever, so each is matched once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Handler = Callable[..., None]
"""``handler(topic, payload)``, or ``handler(topic, payload, ack)`` on a link with ``manual_ack``: see `Delivery`."""

#: Topics that are remembered: 12 MB at most. What comes on more is matched anew.
MOST_KNOWN = 1 << 16


class Routes:
    """Subscriptions, none of which is added later: a link makes new routes then.

    Args:
        handlers: (topic filter, handler), in the order in which they are called.
    """

    def __init__(self, handlers: Sequence[tuple[str, Handler]]) -> None:
        self.handlers = tuple(handlers)
        self._filters = [_without_share(topic_filter).split("/") for topic_filter, _ in self.handlers]
        self._known: dict[str, tuple[tuple[str, Handler], ...]] = {}

    def of(self, topic: str) -> tuple[tuple[str, Handler], ...]:
        """The filters that match a topic, and their handlers."""
        if (found := self._known.get(topic)) is None:
            levels = topic.split("/")
            pairs = zip(self._filters, self.handlers, strict=True)
            found = tuple([handler for wanted, handler in pairs if _matches(wanted, levels)])
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[topic] = found
        return found


def _without_share(topic_filter: str) -> str:
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


def _matches(wanted: list[str], levels: list[str]) -> bool:
    """Whether a topic's levels match a filter's (MQTT 5, section 4.7): ``+`` is one level, ``#`` any number."""
    if levels[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(levels) or level not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)
