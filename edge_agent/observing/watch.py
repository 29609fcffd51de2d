"""Watching one loaded release: which outputs observing needs, and how answered requests become window and memory."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from operator import is_, itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.observing.releases import ReleaseFacts
from edge_agent.observing.retention import Batch
from edge_agent.ports import LoadedRelease
from edgeloop.insights import InsightsError, Observer, Window
from edgeloop.records import dataclass

Array = npt.NDArray[Any]


#: One request as the data plane handed it over: (release, prediction id, inputs, outputs, name → place in the outputs,
#: nanoseconds). A plain tuple, since one is made for every request. One that failed has no outputs; one that is not
#: observed in full has no inputs.
Answered = tuple[LoadedRelease, str, Array | None, Sequence[Array], Mapping[str, int], int]


@dataclass(frozen=True, eq=False)
class Watch:
    """What is fixed for one loaded release. It holds the release weakly, so that a switched-off session can go.

    Attributes:
        loaded: weak reference to the release.
        observer: counts into windows.
        facts: what is remembered of the release.
        outputs: names of the outputs that are needed, the scores first.
        features: name of the features output, or None.
    """

    loaded: weakref.ref[LoadedRelease]
    observer: Observer
    facts: ReleaseFacts
    outputs: tuple[str, ...]
    features: str | None

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
            facts=ReleaseFacts(loaded.profile.schema, tuple(loaded.package.meta.labels)),
            outputs=tuple(name for name in (scores, features) if name is not None),
            features=features,
        )

    def observe(self, loaded: LoadedRelease, window: Window, answered: Sequence[Answered]) -> list[Batch]:
        """Count answered requests of this release into ``window``; returns what is to be kept of them."""
        groups = [list(answered)]
        if any(item[2] is None for item in answered):
            groups = [[a for a in answered if a[2] is not None], [a for a in answered if a[2] is None]]
        return [self._observe(loaded, window, group) for group in groups if group]

    def _observe(self, loaded: LoadedRelease, window: Window, answered: Sequence[Answered]) -> Batch:
        """The same for requests that are all observed in full, or all by their scores alone."""
        _, ids, parts, outputs, places, latencies = zip(*answered, strict=True)
        in_full = parts[0] is not None
        wanted = self.outputs if in_full else self.outputs[:1]
        columns = {name: _column(outputs, places, name) for name in wanted}
        joined = {name: _join(column) for name, column in columns.items()}
        scores = loaded.session.probabilities(joined)
        if scores is None:
            raise InsightsError("the outputs hold no class scores; build the package again with model-export")
        features = joined[self.features].reshape(len(scores), -1) if in_full and self.features is not None else None
        counts = np.array(list(map(len, columns[self.outputs[0]])), dtype=np.int64)
        latency = np.array(latencies, dtype=np.int64)
        if len(latency) != len(scores):
            latency = np.repeat(latency, counts)
        self.observer.observe(window, _join(parts) if in_full else None, scores, features, latency)
        return Batch(ids, counts, scores.argmax(axis=1), scores.max(axis=1), features)


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
