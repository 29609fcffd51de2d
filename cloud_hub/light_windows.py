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
from dataclasses import asdict
from typing import Literal

import numpy as np
from sqlalchemy import and_, select

from cloud_hub.light_rows import Fresh, Layout, Members, State
from cloud_hub.records.database import Database
from cloud_hub.records.decision_tables import light_windows as table
from cloud_hub.seen import Seen
from edgeloop.insights.alarming import Streak
from edgeloop.insights.aspects.counts import PREDICTIONS
from edgeloop.insights.aspects.privacy import NOISED, WITHHELD

Kind = Literal["device", "segment"]
KINDS: tuple[Kind, ...] = ("device", "segment")

#: A window that comes so much later than others of its device is of the past: it counts in every total, and does not
#: say what the device is like now. Relative to its own others, since clocks are wrong.
LATE_S = 3600.0
#: A device or segment that has not been heard of for so long carries nothing.
IDLE_S = 86_400.0
#: Segments of one release on a channel; names come from devices.
MOST_SEGMENTS = 64
FLUSH_S = 30.0
_ROWS_AT_ONCE = 500


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
        self._fresh: dict[tuple[str, str, Kind], Fresh] = {}
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
        counted = counts[:, PREDICTIONS] > 0
        if (marks := seen.arrays.get("privacy")) is not None:
            counted &= ~marks[:, [NOISED, WITHHELD]].any(axis=1)  # noise hides who carries a drift, as it is meant to
        lengths = np.clip(np.asarray(seen.ends) - np.asarray(seen.starts), 0.0, IDLE_S)
        since = (now - lengths).tolist()
        with self._lock:
            present = self._are_present(seen.devices, seen.ends, now)
            wanted = [place for place, (one, other) in enumerate(zip(counted, present, strict=True)) if one and other]
            for channel in {seen.channels[place] for place in wanted}:
                here = [place for place in wanted if seen.channels[place] == channel]
                named = [place for place in here if seen.segments[place]]
                chosen: tuple[tuple[Kind, Sequence[str], list[int]], ...] = (
                    ("device", seen.devices, here),
                    ("segment", seen.segments, named),
                )
                for kind, names, places in chosen:
                    if places:
                        fresh = self._fresh.setdefault((channel, seen.release, kind), Fresh(layout))
                        fresh.add([names[at] for at in places], rows[places], [since[at] for at in places], now)

    def _are_present(self, devices: Sequence[str], ends: Sequence[float], now: float) -> list[bool]:
        """Whether each window is of the present: not much later than others of its device."""
        found = []
        for device, end in zip(devices, ends, strict=True):
            offset = now - end
            self._offsets[device] = best = min(offset, self._offsets.get(device, offset))
            found.append(offset - best <= LATE_S)
        return found

    def group(self, channel: str, release: str) -> Group | None:
        """The members of a release on a channel with all that has come; None for a release without a profile."""
        if (layout := self._layout(release)) is None:
            return None
        key = (channel, release)
        if key not in self._groups:
            self._groups[key] = self._load(channel, release, layout)
        group = self._groups[key]
        with self._lock:
            fresh = {kind: self._fresh.pop((channel, release, kind), None) for kind in KINDS}
        for kind, found in fresh.items():
            if found is not None:
                found.give(group[kind], None if kind == "device" else MOST_SEGMENTS)
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
