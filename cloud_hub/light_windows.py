"""The latest stretch of each device and each segment: counts in bins only, one row of a fixed size each.

The merged windows say that something moved, and these say who carries it. They take no part in exactness: ingest adds
what it has counted after its commit, and they are written every now and then, so a killed hub loses some seconds of
what each device was like lately, and no count.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import and_, select

from cloud_hub.records.database import Database
from cloud_hub.records.decision_tables import light_windows as table
from cloud_hub.seen import Seen
from edgeloop.insights import HISTOGRAMS, Window, WindowSchema
from edgeloop.insights.alarming import Streak
from edgeloop.insights.aspects.counts import PREDICTIONS
from edgeloop.insights.aspects.privacy import NOISED, WITHHELD
from edgeloop.insights.drift import class_groups, counts_of, group_classes

Kind = Literal["device", "segment"]
KINDS: tuple[Kind, ...] = ("device", "segment")
Array = npt.NDArray[Any]

#: A window that comes so much later than others of its device is of the past: it counts in every total, and does not
#: say what the device is like now. Relative to its own others, since clocks are wrong.
LATE_S = 3600.0
#: A device or segment that has not been heard of for so long carries nothing.
IDLE_S = 86_400.0
#: Segments of one release on a channel; names come from devices.
MOST_SEGMENTS = 64
#: No bin counts more: 32 bits hold it, and its share is then certain.
MOST_IN_BIN = 1 << 30
FLUSH_S = 30.0
_ROWS_AT_ONCE = 500


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

    def add(self, name: str, counts: Array, since: float, until: float) -> None:
        """Add what has come."""
        row = self.place(name)
        state = self.states[row]
        if not state.since or not self.layout.predictions(self.now[row]):
            state.since = since
        state.since, state.until = min(state.since, since), max(state.until, until)
        for rows in (self.now, self.lately):
            rows[row] = np.minimum(rows[row].astype(np.int64) + counts, MOST_IN_BIN)
        self.changed.add(name)

    def keep(self, wanted: Sequence[bool]) -> None:
        """Forget the rows that are not wanted."""
        if all(wanted):
            return
        chosen = np.flatnonzero(wanted)
        self._rows = self._rows[:, chosen]
        self.names = [self.names[row] for row in chosen]
        self.states = [self.states[row] for row in chosen]
        self._places = {name: row for row, name in enumerate(self.names)}


Group = Mapping[Kind, Members]


class LightWindows:
    """The light windows of a hub. `observed` may be called from any thread; the rest is the drift watch's.

    Args:
        db: the records.
        layout_of: release digest → layout, or None for a release without a profile.
        clock: unix seconds.
    """

    def __init__(
        self, db: Database, layout_of: Callable[[str], Layout | None], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._db, self._layout_of, self._clock = db, layout_of, clock
        self._lock = threading.Lock()
        self._fresh: dict[tuple[str, str, Kind, str], tuple[Array, float, float]] = {}
        self._offsets: dict[str, float] = {}
        self._layouts: dict[str, Layout | None] = {}
        self._groups: dict[tuple[str, str], Group] = {}
        self._flushed = clock()

    def observed(self, seen: Seen) -> None:
        """Note windows that were counted; see ``Ingest.observes``."""
        counts = seen.arrays.get("counts")
        if counts is None or (layout := self._layout(seen.release)) is None:
            return
        now, rows = self._clock(), layout.rows(seen.arrays, len(seen.devices))
        wanted = counts[:, PREDICTIONS] > 0
        if (marks := seen.arrays.get("privacy")) is not None:
            wanted &= ~marks[:, [NOISED, WITHHELD]].any(axis=1)  # noise hides who carries a drift, as it is meant to
        with self._lock:
            for place, (device, end) in enumerate(zip(seen.devices, seen.ends, strict=True)):
                offset = now - end
                self._offsets[device] = best = min(offset, self._offsets.get(device, offset))
                if wanted[place] and offset - best <= LATE_S:
                    self._note(seen, place, rows[place], now)

    def _note(self, seen: Seen, place: int, row: Array, now: float) -> None:
        channel, segment = seen.channels[place], seen.segments[place]
        since = now - min(max(seen.ends[place] - seen.starts[place], 0.0), IDLE_S)
        names: list[tuple[Kind, str]] = [("device", seen.devices[place])]
        if segment:
            names.append(("segment", segment))
        for kind, name in names:
            key = (channel, seen.release, kind, name)
            counts, first = row.copy(), since  # of many rows, which are not to be kept with it
            if (found := self._fresh.get(key)) is not None:
                counts, first = found[0] + row, min(found[1], since)
            self._fresh[key] = counts, first, now

    def group(self, channel: str, release: str) -> Group | None:
        """The members of a release on a channel with all that has come; None for a release without a profile."""
        if (layout := self._layout(release)) is None:
            return None
        key = (channel, release)
        if key not in self._groups:
            self._groups[key] = self._load(channel, release, layout)
        group = self._groups[key]
        with self._lock:
            mine = [found for found in self._fresh if found[:2] == key]
            fresh = {found: self._fresh.pop(found) for found in mine}
        for (_, _, kind, name), (counts, since, until) in fresh.items():
            members = group[kind]
            if kind == "device" or name in members.names or len(members) < MOST_SEGMENTS:
                members.add(name, counts, since, until)
        return group

    def tidy(self, watched: Iterable[tuple[str, str]]) -> None:
        """Forget what is not watched any more and who is not heard of, and write what has changed now and then."""
        now, keys = self._clock(), set(watched)
        with self._lock:
            for key in [key for key in self._fresh if key[:2] not in keys]:
                del self._fresh[key]
        self._groups = {key: group for key, group in self._groups.items() if key in keys}
        for group in self._groups.values():
            for members in group.values():
                members.keep([now - state.until < IDLE_S for state in members.states])
        if now - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what has changed; some rows at a time, so that ingest gets its turn."""
        self._flushed = self._clock()
        for (channel, release), group in self._groups.items():
            for kind, members in group.items():
                names = [name for name in members.names if name in members.changed]
                members.changed.clear()
                for start in range(0, len(names), _ROWS_AT_ONCE):
                    self._write(channel, release, kind, members, names[start : start + _ROWS_AT_ONCE])

    def _layout(self, release: str) -> Layout | None:
        if release not in self._layouts:
            self._layouts[release] = self._layout_of(release)
        return self._layouts[release]

    def _write(self, channel: str, release: str, kind: Kind, members: Members, names: Sequence[str]) -> None:
        rows = []
        for name in names:
            row = members.place(name)
            data = np.stack([members.now[row], members.last[row]]).astype("<i4").tobytes()
            key = {"channel": channel, "kind": kind, "name": name, "release": release}
            rows.append({**key, "state_json": json.dumps(asdict(members.states[row])), "data": data})
        stamped = [{**row, "updated": self._flushed} for row in rows]
        where = and_(table.c.kind == kind, table.c.name.in_(names))
        if kind == "segment":
            where = and_(where, table.c.channel == channel)
        with self._db.begin() as connection:  # a device has one row, whatever channel it was on
            connection.execute(table.delete().where(where))
            connection.execute(table.insert(), stamped)

    def _load(self, channel: str, release: str, layout: Layout) -> Group:
        group: dict[Kind, Members] = {kind: Members(layout) for kind in KINDS}
        query = select(table).where(table.c.channel == channel, table.c.release == release)
        with self._db.read() as connection:
            for row in connection.execute(query):
                counts = np.frombuffer(row.data, "<i4")
                if row.kind not in group or len(counts) != 2 * layout.size:
                    continue  # written by another version
                members = group[row.kind]
                place, state = members.place(row.name), json.loads(row.state_json)
                members.now[place], members.last[place] = counts.reshape(2, -1)
                members.states[place] = State(**{**state, "streak": Streak(**state["streak"])})
        return group
