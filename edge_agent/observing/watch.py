"""Watching one loaded release: which outputs observing needs, and how answered requests become window and memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import is_, itemgetter
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.observing.chunks import Batch
from edge_agent.observing.observers import Observers
from edge_agent.observing.releases import KnownReleases, ReleaseFacts
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

    def by_form(self, answered: Sequence[Answered]) -> Iterable[Sequence[Answered]]:
        """Answered requests of this release, apart where their inputs do not look alike: `observe` takes such alone."""
        # None: the inputs are not given.
        if self.varies:
            forms = [None if part is NO_ROWS else part.shape[1:] for part in map(itemgetter(2), answered)]
        else:
            forms = [None if part is NO_ROWS else () for part in map(itemgetter(2), answered)]
        if forms.count(forms[0]) == len(forms):
            return [answered]
        alike: dict[tuple[int, ...] | None, list[Answered]] = {}
        for form, one in zip(forms, answered, strict=True):
            alike.setdefault(form, []).append(one)
        return alike.values()

    def observe(
        self, loaded: LoadedRelease, window: Window, answered: Sequence[Answered], drawn: Drawn = NONE_DRAWN
    ) -> Batch:
        """Count answered requests of this release, whose inputs look alike, into ``window``.

        Returns:
            What is to be kept of them. What raises has counted nothing.
        """
        _, ids, parts, outputs, places, _, latencies, runs = zip(*answered, strict=True)
        joined = {name: _join(_column(outputs, places, name)) for name in self.outputs}
        scores = self._probabilities(loaded, joined)
        features = joined[self.features].reshape(len(scores), -1) if self.features is not None else None
        counts = np.array(list(map(len, _column(outputs, places, self.outputs[0]))), dtype=np.int64)
        inputs = None if parts[0] is NO_ROWS else _join(parts)
        return self._count(window, inputs, scores, features, ids, counts, latencies, runs, drawn)

    def observe_scores(self, loaded: LoadedRelease, window: Window, block: Block, drawn: Drawn = NONE_DRAWN) -> Batch:
        """The same for requests that are observed by their scores alone."""
        scores = self._probabilities(loaded, {self.outputs[0]: block.scores})
        counts = np.fromiter(block.counts, np.int64, len(block.counts))
        return self._count(window, None, scores, None, block.ids, counts, block.latencies, block.runs, drawn)

    def _count(
        self,
        window: Window,
        inputs: Array | None,
        scores: Array,
        features: Array | None,
        ids: Sequence[str],
        counts: npt.NDArray[np.int64],
        latencies: Sequence[int],
        runs: Sequence[int],
        drawn: Drawn,
    ) -> Batch:
        marks = _marks(drawn, ids, counts)
        batch = Batch(ids, counts, scores.argmax(axis=1), scores.max(axis=1), features, window.segment, marks)
        latency, run = _times(latencies, runs, counts)
        # What is not the run is waiting: for a place to run, and for others to run with.
        queue = np.maximum(latency - run, 0)
        # The last step: whatever has raised before, nothing was counted.
        self.observer.observe(window, inputs, scores, features, latency, queue_ns=queue, run_ns=run, drawn=marks)
        return batch

    def _probabilities(self, loaded: LoadedRelease, outputs: Mapping[str, Array]) -> Array:
        scores = loaded.session.probabilities(outputs)
        if scores is None:
            raise InsightsError("the outputs hold no class scores; build the package again with model-export")
        return scores


class Watches:
    """The watches of loaded releases; from any thread.

    Args:
        known: is told of every release.
        observers: is given every observer.
    """

    def __init__(self, known: KnownReleases, observers: Observers) -> None:
        self._known, self._observers = known, observers
        self._lock = threading.Lock()
        self._watches: dict[str, Watch] = {}

    def __contains__(self, release: str) -> bool:
        return release in self._watches

    def of(self, loaded: LoadedRelease) -> Watch | None:
        """The watch of a release; None for one that cannot be observed."""
        watch = self._watches.get(loaded.digest)
        if watch is not None and watch.loaded() is loaded:
            return watch
        with self._lock:
            watch = Watch.of(loaded)
            if watch is None:
                return None
            self._known.add(loaded.digest, watch.facts)
            self._observers.add(loaded.digest, watch.observer)
            self._watches[loaded.digest] = watch
            for digest in [digest for digest, other in self._watches.items() if other.loaded() is None]:
                del self._watches[digest]
        return watch


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
