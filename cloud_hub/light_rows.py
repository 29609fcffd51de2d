"""Rows of counts, one for each device or segment: what its latest stretch is like, beside the others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.insights import HISTOGRAMS, Window, WindowSchema
from edgeloop.insights.alarming import Streak
from edgeloop.insights.drift import class_groups, counts_of, group_classes

Array = npt.NDArray[Any]

#: No bin counts more: 32 bits hold it, and its share is then certain.
MOST_IN_BIN = 1 << 30


class Layout:
    """Where each count stands in a row of L counts.

    Args:
        schema: of the release's windows.
        reference: the profile's; its class counts say which classes are counted together.
    """

    def __init__(self, schema: WindowSchema, reference: Window) -> None:
        self.starts = class_groups(reference.arrays["classes"])
        shapes = {name: array.shape for name, array in counts_of(Window.zero(schema), self.starts).items()}
        self._shapes = {"classes": shapes["classes"]}
        self._shapes |= {found.name: shapes[found.name] for found in HISTOGRAMS if found.name in shapes}
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in self._shapes.values())])
        self._places = {name: slice(a, b) for name, a, b in zip(self._shapes, ends[:-1], ends[1:], strict=True)}
        self.size = int(ends[-1])

    def rows(self, arrays: Mapping[str, Array], count: int) -> Array:
        """The arrays [G, …] of ``count`` windows as rows [G, L]; what they know only coarsely is left out."""
        rows = np.zeros((count, self.size), np.int64)
        for name, place in self._places.items():
            if (counts := arrays.get(name)) is not None:
                counts = group_classes(counts, self.starts) if name == "classes" else counts.reshape(count, -1)
                rows[:, place] = np.minimum(counts, MOST_IN_BIN)
        return rows

    def counts(self, rows: Array) -> dict[str, Array]:
        """Rows [..., L] as the counts that a `Comparison` takes."""
        many = rows.shape[:-1]
        return {name: rows[..., place].reshape(*many, *self._shapes[name]) for name, place in self._places.items()}

    def predictions(self, rows: Array) -> Array:
        """Predictions in each row [..., L]."""
        return np.asarray(rows[..., self._places["classes"]].sum(axis=-1))


@dataclass
class State:
    """How far a device or segment has been compared.

    Attributes:
        since: unix seconds, the hub's clock: begin of the stretch that is being gathered.
        until: unix seconds of what came last.
        streak: what its latest comparisons said.
        carries: it is named in an alarm.
        moved: the aspects that moved in its latest drifted comparison, plain.
        p_value: of that comparison.
    """

    since: float = 0.0
    until: float = 0.0
    streak: Streak = field(default_factory=Streak)
    carries: bool = False
    moved: list[dict[str, Any]] = field(default_factory=list)
    p_value: float = 1.0


class Members:
    """All devices, or all segments, of one release on one channel: a row each in three arrays.

    Attributes:
        layout: of the rows.
        names: by row.
        states: by row.
        now: int32 [N, L], the stretch that is being gathered.
        last: int32 [N, L], the one before it, which was compared.
        lately: int32 [N, L], what came since the fleet's latest stretch was compared.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.names: list[str] = []
        self.states: list[State] = []
        self._places: dict[str, int] = {}
        self._rows = np.zeros((3, 0, layout.size), np.int32)
        self.changed: set[str] = set()

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @property
    def now(self) -> Array:
        """See the class."""
        return self._rows[0, : len(self)]

    @property
    def last(self) -> Array:
        """See the class."""
        return self._rows[1, : len(self)]

    @property
    def lately(self) -> Array:
        """See the class."""
        return self._rows[2, : len(self)]

    def place(self, name: str) -> int:
        """The row of a name, made where it is missing."""
        if (found := self._places.get(name)) is None:
            found = self._places[name] = len(self.names)
            self.names.append(name)
            self.states.append(State())
            if found >= self._rows.shape[1]:
                more = np.zeros((3, max(16, found), self.layout.size), np.int32)
                self._rows = np.concatenate([self._rows, more], axis=1)
        return found

    def add(self, names: Sequence[str], counts: Array, since: Sequence[float], until: Sequence[float]) -> None:
        """Add what has come.

        Args:
            names: each once.
            counts: a row for each name, int64 [N, L].
            since: unix seconds, the hub's clock: begin of what is counted.
            until: and its end.
        """
        rows = [self.place(name) for name in names]
        anew = (self.layout.predictions(self.now[rows]) == 0).tolist()
        for row, fresh, begin, end in zip(rows, anew, since, until, strict=True):
            state = self.states[row]
            state.since = begin if fresh or not state.since else min(state.since, begin)
            state.until = max(state.until, end)
        for kept in (self.now, self.lately):
            kept[rows] = np.minimum(kept[rows].astype(np.int64) + counts, MOST_IN_BIN)
        self.changed.update(names)

    def keep(self, wanted: Sequence[bool]) -> None:
        """Forget the rows that are not wanted."""
        if all(wanted):
            return
        chosen = np.flatnonzero(wanted)
        self._rows = self._rows[:, chosen]
        self.names = [self.names[row] for row in chosen]
        self.states = [self.states[row] for row in chosen]
        self._places = {name: row for row, name in enumerate(self.names)}


class Fresh:
    """What has come for devices, or for segments, since it was looked at last: added up, a row for each name."""

    def __init__(self, layout: Layout) -> None:
        self._places: dict[str, int] = {}
        self._rows = np.zeros((0, layout.size), np.int64)
        self._since: list[float] = []
        self._until: list[float] = []

    def add(self, names: Sequence[str], rows: Array, since: Sequence[float], until: float) -> None:
        """Add rows, int64 [N, L], of what has come ``until`` now; a name may be there several times."""
        known = self._places
        places = [known.setdefault(name, len(known)) for name in names]
        if len(known) > len(self._rows):
            more = np.zeros((len(known) + 16, self._rows.shape[1]), np.int64)
            self._rows = np.concatenate([self._rows, more])
        if len(set(places)) == len(places):
            self._rows[places] += rows
        else:
            np.add.at(self._rows, places, rows)
        for place, begin in zip(places, since, strict=True):
            if place == len(self._since):
                self._since.append(begin)
                self._until.append(until)
            else:
                self._since[place], self._until[place] = min(self._since[place], begin), until

    def give(self, members: Members, most: int | None) -> None:
        """Add it to the members; with ``most``, the names beyond that number are left out."""
        names = list(self._places)
        if most is not None:
            room = most - len(members)
            new = [name for name in names if name not in members]
            left_out = set(new[max(room, 0) :])
            chosen = [place for place, name in enumerate(names) if name not in left_out]
        else:
            chosen = list(range(len(names)))
        members.add(
            [names[place] for place in chosen],
            self._rows[chosen],
            [self._since[place] for place in chosen],
            [self._until[place] for place in chosen],
        )
