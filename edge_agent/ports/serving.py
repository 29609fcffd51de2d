"""The data plane, as the update machine sees it."""

from __future__ import annotations

from typing import Protocol

from edge_agent.ports.releases import LoadedRelease
from edgeloop.records import dataclass


@dataclass(frozen=True)
class ServingCounters:
    """Running totals of one loaded release since it was switched on; probation watches them.

    Latencies are in nanoseconds, summed over successful requests. A prediction is a row; a run answers one or several.
    Predictions and non-finite ones are rows, errors and requests are requests: failed ones, and those with an answer.
    """

    predictions: int
    errors: int
    nonfinite: int
    latency_ns: int
    runs: int
    requests: int


class Serving(Protocol):
    """The data plane, as the update machine sees it."""

    def switch(self, loaded: LoadedRelease | None) -> None:
        """Make ``loaded`` answer every new request; requests in flight finish on the old session.

        The old session is closed when its last request has finished. ``None`` serves nothing.
        """

    def counters(self) -> ServingCounters:
        """Totals of the release that serves now, since its switch."""
