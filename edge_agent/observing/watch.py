"""Watching one loaded release: which outputs observing needs, and how answered requests become window and memory."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress
from operator import is_, itemgetter
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.observing.releases import ReleaseFacts
from edge_agent.observing.retention import Batch
from edge_agent.observing.scores import Block
from edge_agent.ports import LoadedRelease
from edgeloop.insights import InsightsError, Observer, Window
from edgeloop.insights.privacy.rule import clip_of
from edgeloop.records import dataclass

Array = npt.NDArray[Any]


#: One request as the data plane handed it over: (release, prediction id, inputs, outputs, name → place in the outputs,
#: segment, nanoseconds of all, and of the run). A plain tuple, since one is made for every request. Inputs that are not
#: summarised are `NO_ROWS`; one that failed has no outputs either.
Answered = tuple[LoadedRelease, str, Array, Sequence[Array], Mapping[str, int], str, int, int]
NO_ROWS: Array = np.empty(0)
#: Prediction id → the rows of it that were drawn for an audit.
Drawn = Mapping[str, tuple[int, ...]]
NONE_DRAWN: Drawn = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Watch:
    """What is fixed for one loaded release. It holds the release weakly, so that a switched-off session can go.

    Attributes:
        loaded: weak reference to the release.
        observer: counts into windows.
        facts: what is remembered of the release.
        outputs: names of the outputs that are needed, the scores first.
        features: name of the features output, or None.
        varies: whether the input of one request may have more pixels, or more tokens, than that of another.
    """

    loaded: weakref.ref[LoadedRelease]
    observer: Observer
    facts: ReleaseFacts
    outputs: tuple[str, ...]
    features: str | None
    varies: bool

    @classmethod
    def of(cls, loaded: LoadedRelease) -> Watch | None:
        """The watch for a release; None without a profile or class scores, since then nothing can be compared."""
        roles = loaded.session.roles
        scores = roles.get("probabilities") or roles.get("logits")
        if loaded.profile is None or scores is None:
            return None
        features = roles.get("features") if loaded.profile.schema.features else None
        return cls(
            loaded=weakref.ref(loaded),
            observer=Observer(loaded.profile),
            facts=ReleaseFacts(loaded.profile.schema, tuple(loaded.package.meta.labels), clip_of(loaded.profile)),
            outputs=tuple(name for name in (scores, features) if name is not None),
            features=features,
            varies=loaded.profile.form.kind in ("image", "tokens"),
        )

    def observe(
        self, loaded: LoadedRelease, window: Window, answered: Sequence[Answered], drawn: Drawn = NONE_DRAWN
    ) -> Batch:
        """Count answered requests of this release into ``window``; returns what is to be kept of them."""
        _, ids, parts, outputs, places, _, latencies, runs = zip(*answered, strict=True)
        joined = {name: _join(_column(outputs, places, name)) for name in self.outputs}
        scores = self._probabilities(loaded, joined)
        features = joined[self.features].reshape(len(scores), -1) if self.features is not None else None
        counts = np.array(list(map(len, _column(outputs, places, self.outputs[0]))), dtype=np.int64)
        times = _times(latencies, runs, counts)
        marks = _marks(drawn, ids, counts)
        shapes = self._shapes(parts)
        distinct = dict.fromkeys(shapes)
        for shape in distinct:
            alike = [found == shape for found in shapes]
            inputs = None if shape is None else _join(list(compress(parts, alike)))
            if len(distinct) == 1:
                self._count(window, inputs, scores, features, times, marks)
            else:
                rows = np.repeat(alike, counts)
                some = features[rows] if features is not None else None
                drawn_of_some = None if marks is None else marks[rows]
                self._count(window, inputs, scores[rows], some, times[:, rows], drawn_of_some)
        return Batch(ids, counts, scores.argmax(axis=1), scores.max(axis=1), features, window.segment, marks)

    def observe_scores(self, loaded: LoadedRelease, window: Window, block: Block, drawn: Drawn = NONE_DRAWN) -> Batch:
        """The same for requests that are observed by their scores alone."""
        scores = self._probabilities(loaded, {self.outputs[0]: block.scores})
        counts = np.fromiter(block.counts, np.int64, len(block.counts))
        marks = _marks(drawn, block.ids, counts)
        self._count(window, None, scores, None, _times(block.latencies, block.runs, counts), marks)
        return Batch(block.ids, counts, scores.argmax(axis=1), scores.max(axis=1), None, window.segment, marks)

    def _shapes(self, parts: Sequence[Array]) -> list[tuple[int, ...] | None]:
        """What a row of each request's input looks like; those that look alike are counted at once. None: not given."""
        if self.varies:
            return [None if part is NO_ROWS else part.shape[1:] for part in parts]
        return [None if part is NO_ROWS else () for part in parts]

    def _count(
        self,
        window: Window,
        inputs: Array | None,
        scores: Array,
        features: Array | None,
        times: Array,
        drawn: Array | None,
    ) -> None:
        latency, run = times
        # What is not the run is waiting: for a place to run, and for others to run with.
        queue = np.maximum(latency - run, 0)
        self.observer.observe(window, inputs, scores, features, latency, queue_ns=queue, run_ns=run, drawn=drawn)

    def _probabilities(self, loaded: LoadedRelease, outputs: Mapping[str, Array]) -> Array:
        scores = loaded.session.probabilities(outputs)
        if scores is None:
            raise InsightsError("the outputs hold no class scores; build the package again with model-export")
        return scores


def _marks(drawn: Drawn, ids: Sequence[str], counts: npt.NDArray[np.int64]) -> Array | None:
    """Which rows were drawn for an audit, bool [rows]; None: none, which is what nearly every batch has."""
    if not drawn or not (asked := [place for place, name in enumerate(ids) if name in drawn]):
        return None
    starts, marks = np.cumsum(counts) - counts, np.zeros(int(counts.sum()), dtype=bool)
    for place in asked:
        rows = [row for row in drawn[ids[place]] if row < counts[place]]
        marks[starts[place] + np.array(rows, dtype=np.int64)] = True
    return marks


def _times(latencies: Sequence[int], runs: Sequence[int], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Nanoseconds of all and of the run, int64 [2, rows]: each row has its request's."""
    both = np.empty((2, len(latencies)), np.int64)
    both[0], both[1] = (np.fromiter(measured, np.int64, len(measured)) for measured in (latencies, runs))
    return both if both.shape[1] == counts.sum() else np.repeat(both, counts, axis=1)


def _column(outputs: Sequence[Sequence[Array]], places: Sequence[Mapping[str, int]], name: str) -> list[Array]:
    """One output of every request. Requests that want the same have the very same places."""
    first = places[0]
    if all(map(partial(is_, first), places)):
        return list(map(itemgetter(first[name]), outputs))
    return [found[place[name]] for found, place in zip(outputs, places, strict=True)]


def _join(parts: Sequence[Array]) -> Array:
    """The parts one below the other, like ``np.concatenate``, which takes four times as long for many small parts."""
    first = parts[0]
    if len(parts) == 1:
        return first
    try:
        joined = np.frombuffer(b"".join(parts), first.dtype)  # type: ignore[arg-type]  # an array is a buffer
        # All parts come from one model's tensor; a part of another dtype shows in the length.
        return joined.reshape(sum(map(len, parts)), *first.shape[1:])
    except (ValueError, TypeError, BufferError):  # not contiguous, objects, or of odd shapes: the slow way explains
        return np.concatenate(parts)
