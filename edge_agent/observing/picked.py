"""Rows of requests under way that were picked, for an audit or for the hub's teacher, until the request is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edge_agent.observing.chunks import Batch
from edge_agent.ports import Chosen
from edgeloop.insights import drawn_rows

#: Requests that are remembered of each kind; those that failed to be observed stay until there are so many.
MOST_REQUESTS = 10_000


class Picked:
    """What was picked, by prediction id. Request threads add to it, whoever counts takes from it."""

    def __init__(self) -> None:
        #: Prediction id → rows that were drawn for an audit.
        self.audits: dict[str, tuple[int, ...]] = {}
        self._chosen: dict[str, Mapping[int, Chosen]] = {}

    def draw(self, prediction_id: str, rows: int, share: float) -> tuple[int, ...]:
        """Draw rows of a request for an audit."""
        found = drawn_rows(prediction_id, rows, share)
        if found:
            if len(self.audits) >= MOST_REQUESTS:
                self.audits.clear()
            self.audits[prediction_id] = found
        return found

    def choose(self, prediction_id: str, rows: Mapping[int, Chosen]) -> None:
        """Rows of a request were chosen for the teacher."""
        if len(self._chosen) >= MOST_REQUESTS:
            self._chosen.clear()
        self._chosen[prediction_id] = rows

    def onto(self, batch: Batch) -> Batch:
        """A batch that was counted, with its rows that were chosen; what was picked of its requests is forgotten."""
        if self._chosen:
            starts = (np.cumsum(batch.counts) - batch.counts).tolist()
            rows = {
                start + row: chosen
                for start, name in zip(starts, batch.ids, strict=True)
                for row, chosen in self._chosen.pop(name, {}).items()
            }
            batch = replace(batch, chosen=rows)
        if batch.audited is not None:
            for name in batch.ids:
                self.audits.pop(name, None)
        return batch
