"""True labels for earlier predictions: found, checked, counted into the window of the release that predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from edge_agent.observing.chunks import Found
from edge_agent.observing.observers import Observers
from edge_agent.observing.releases import KnownReleases
from edge_agent.observing.retention import Retention
from edge_agent.observing.windows import OpenWindows
from edge_agent.ports import FeedbackItem, FeedbackResult, OpenAudit
from edgeloop.insights import holdout_share


class _Label(NamedTuple):
    item: FeedbackItem
    found: Found
    label: int


class Labelling:
    """Takes batches of labels. Not thread-safe: the recorder's lock guards it.

    Attributes:
        heard: is told of labels that are counted: (prediction id, row in the request, class index); None: nobody.
    """

    def __init__(self, windows: OpenWindows, retention: Retention, known: KnownReleases, observers: Observers) -> None:
        self._windows = windows
        self._retention = retention
        self._known = known
        self._observers = observers
        self.heard: Callable[[Sequence[tuple[str, int, int]]], None] | None = None

    def take(self, items: Sequence[FeedbackItem]) -> FeedbackResult:
        """Count what can be counted; every item ends in exactly one part of the result."""
        unknown: list[str] = []
        duplicate: list[str] = []
        invalid: list[tuple[str, str]] = []
        counted: dict[tuple[str, str], list[_Label]] = {}
        for item in items:
            found = self._retention.find(item.prediction_id, item.index)
            if found is None:
                unknown.append(item.prediction_id)
                continue
            if isinstance(found, str):
                invalid.append((item.prediction_id, found))
                continue
            index = self._class_index(found.release, item.label)
            if item.most_weight is not None and found.probability is None:
                # Nobody knows how it was chosen, so nobody knows what it stands for.
                invalid.append((item.prediction_id, f"row {item.index} was not sent to the teacher"))
            elif isinstance(index, str):
                invalid.append((item.prediction_id, index))
            elif found.labelled:
                duplicate.append(item.prediction_id)
            else:
                # Marked at once, so that the same row twice in one batch is seen.
                self._retention.mark(found)
                counted.setdefault((found.release, found.segment), []).append(_Label(item, found, index))
        for (release, segment), labels in counted.items():
            self._count(release, segment, labels)
            if self.heard is not None:
                self.heard([(one.item.prediction_id, one.item.index, one.label) for one in labels])
        return FeedbackResult(sum(map(len, counted.values())), unknown, duplicate, invalid)

    def open_audit(self, found: Found) -> OpenAudit:
        """An answer whose label is asked for, as people see it."""
        facts, predicted = self._known.get(found.release), found.predicted
        name = facts.labels[predicted] if facts is not None and predicted < len(facts.labels) else str(predicted)
        identity, index = found.chunk.request_of(found.row)
        return OpenAudit(identity, index, found.release, predicted, name, found.confidence, found.segment)

    def _class_index(self, release: str, label: int | str) -> int | str:
        """The class index that a label means, or a sentence that says what is wrong with it."""
        facts = self._known.get(release)
        if facts is None or self._observers.get(release) is None:
            return "the release that predicted it is no longer on this device"
        if isinstance(label, str):
            if label in facts.labels:
                return facts.labels.index(label)
            return f"no class is called {label[:64]!r}; there are {', '.join(facts.labels[:20])}"
        if isinstance(label, bool) or not isinstance(label, int):
            return f"a label is a class index or a class name, not a {type(label).__name__}"
        if not 0 <= label < facts.schema.classes:
            return f"class {label} is outside 0 … {facts.schema.classes - 1}"
        return label

    def _count(self, release: str, segment: str, labels: list[_Label]) -> None:
        facts, observer = self._known.get(release), self._observers.get(release)
        assert facts is not None and observer is not None, "checked label by label"
        window = self._windows.late(release, segment, facts.schema)
        observer.clip = self._known.clip_of(release)
        # Rows that were observed by their scores alone have no features: they count in the confusion matrix.
        for in_full in (True, False):
            some = [one for one in labels if (one.found.features is not None) == in_full]
            if some:
                observer.feedback(
                    window,
                    np.stack([one.found.features for one in some]) if in_full else None,  # type: ignore[misc]
                    np.array([one.found.predicted for one in some], dtype=np.int64),
                    np.array([one.label for one in some], dtype=np.int64),
                    np.array([holdout_share(_row_name(one.item)) for one in some], dtype=np.bool_),
                    confidence=np.array([one.found.confidence for one in some]),
                    audited=np.array([one.found.audited for one in some], dtype=np.bool_),
                    # The bound of a label's influence, which noise has to hide, is that of weight 1.
                    weights=None if self._known.private else np.array([_weight(one) for one in some]),
                )


def _weight(one: _Label) -> float:
    """Of a label that the teacher gave: how many rows like it there were for each that was drawn, within bounds."""
    if one.item.most_weight is None or one.found.probability is None:
        return 1.0
    return max(1.0, min(1 / one.found.probability, one.item.most_weight))


def _row_name(item: FeedbackItem) -> str:
    """What decides the share of a label: rows of one batch must not all fall on one side."""
    return f"{item.prediction_id}/{item.index}" if item.index else item.prediction_id
