"""A table that is replayed, row by row: at a rate or as fast as rows are answered, once or again and again.

How far it came is marked every second, so an agent that is killed repeats the rows of its last second, under the same
prediction ids. A table that was replayed once is not replayed by the next start; another file under its name is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent.flow_settings import ReplaySourceSettings
from edge_agent.flows.contents import row as row_of
from edge_agent.flows.contents import spec_of
from edge_agent.flows.ports import Array, Ended, Item, Reading, Rejected, Trouble
from edge_agent.flows.tables import Row, rows
from edge_agent.serving.calls import Described
from edgeloop.package import TensorSpec

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


class ReplaySource:
    """Implements `edge_agent.flows.ports.Source`.

    Args:
        settings: see docs/reference/flows.md.
        state: folder for the mark.
        now: a clock that only goes forward, seconds.
    """

    live = False

    def __init__(self, settings: ReplaySourceSettings, state: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._state, self._now = settings, state, now
        self._rows: Iterator[Row] = iter(())
        self._table: list[int] = []
        self._round = self._row = 0
        self._done = (0, 0)
        self._due = self._marked_at = 0.0

    def open(self) -> None:
        """Go on where the mark is, if it is of this very file."""
        path = self._settings.path
        try:
            status = path.stat()
        except OSError as error:
            raise Trouble(f"{path} cannot be read: {error.strerror}") from error
        self._table = [status.st_size, status.st_mtime_ns]
        self._round, self._row = self._done = self._read_mark()
        self._rows = rows(path, self._row)
        self._due = self._marked_at = self._now()

    def next(self, timeout_s: float) -> Item | None:
        """The next row, when it is due."""
        if self._settings.repeat == "once" and self._round:
            raise Ended("the table was replayed")
        if (early := self._due - self._now()) > 0:
            time.sleep(min(early, timeout_s))
            if self._now() < self._due:
                return None
        row = next(self._rows, None)
        if row is None:
            self._turn()
            return None
        if self._settings.rate_per_s:
            # From the time that was due, so that the rate holds; a long wait is not caught up with.
            self._due = max(self._due + 1 / self._settings.rate_per_s, self._now() - 1.0)
        self._row += 1
        place = (self._round, self._row)
        about = {"row": self._row} | ({"round": self._round} if self._settings.repeat == "loop" else {})
        identity = f"{self._settings.name}-{self._table[1]:x}-{self._round}-{self._row}"
        return Item(f"row {self._row}", about, (row, place), identity)

    def read(self, item: Item, described: Described) -> Reading:
        """The row's cells as inputs."""
        row: Row = item.body[0]
        columns = self._settings.columns or {spec_of(described, self._settings.input).name: tuple(row)}
        return Reading({name: _cells(spec_of(described, name), row, wanted) for name, wanted in columns.items()})

    def done(self, item: Item) -> None:
        """Remember how far it came; on the disk now and then."""
        self._done = item.body[1]
        if self._now() - self._marked_at >= self._settings.mark_s:
            self._write_mark()

    def reject(self, item: Item, reason: str) -> None:
        """A row that is none is passed over; the flow has counted and logged it."""
        self.done(item)

    def close(self) -> None:
        """Write the mark."""
        self._rows = iter(())
        if self._table:
            try:
                self._write_mark()
            except Trouble:
                return

    def counts(self) -> Mapping[str, int]:
        """Rows never drop; ``rounds`` that are complete."""
        return {"dropped": 0, "rounds": self._round}

    @property
    def trouble(self) -> str:
        """Its troubles are raised."""
        return ""

    def _turn(self) -> None:
        if self._row == 0:
            raise Trouble(f"{self._settings.path} has no rows")
        self._round, self._row = self._done = self._round + 1, 0
        self._write_mark()
        self._rows = rows(self._settings.path)

    # ── the mark ──────────────────────────────────────────────────────────────────────────────

    @property
    def _mark(self) -> Path:
        return self._state / "mark.json"

    def _read_mark(self) -> tuple[int, int]:
        try:
            found = json.loads(self._mark.read_bytes())
            if found["table"] == self._table:
                return int(found["round"]), int(found["row"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or a damaged one: the table is replayed from its beginning
        return 0, 0

    def _write_mark(self) -> None:
        """Whole or not at all, also after a power cut."""
        text = json.dumps({"table": self._table, "round": self._done[0], "row": self._done[1]})
        part = self._mark.with_suffix(".part")
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            with part.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self._mark)
        except OSError as error:
            raise Trouble(f"{self._mark} cannot be written: {error.strerror}") from error
        self._marked_at = self._now()


def _cells(spec: TensorSpec, row: Row, columns: Sequence[str]) -> Array:
    missing = [name for name in columns if row.get(name) is None]
    if missing or not columns:
        raise Rejected(f"it has no value for {', '.join(missing[:3]) or 'any column'}")
    return row_of(spec, [_value(spec, row[name]) for name in columns])


def _value(spec: TensorSpec, value: Any) -> Any:
    """A cell as JSON would bring it: CSV has nothing but texts."""
    if not isinstance(value, str) or spec.datatype == "BYTES":
        return value
    try:
        if spec.datatype == "BOOL":
            return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[value.strip().lower()]
        return float(value) if spec.datatype in ("FP16", "FP32", "FP64", "BF16") else int(value)
    except (ValueError, KeyError) as error:
        raise Rejected(f"{value!r:.40} is no {spec.datatype}") from error
