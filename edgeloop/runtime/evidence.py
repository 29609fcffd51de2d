"""What was measured on this machine, kept: which candidate runs a release, and how every other one did.

One JSON file a release, ``<folder>/<digest>.json``, which is there whole or not at all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeloop.records import dataclass
from edgeloop.whole_files import write_whole

log = logging.getLogger(__name__)

VERSION = 1
#: Anybody may read it; there is nothing secret in it.
MODE = 0o644


@dataclass(frozen=True)
class Trial:
    """How one candidate did.

    Attributes:
        variant: of the package.
        provider: execution provider by ONNX Runtime's name.
        ok: it loads, it is right, it was timed, and it fits the budget.
        median_ms: median time for one row, milliseconds.
        reason: why it is not ok.
        threads: for one run.
        runs: that were timed.
        load_ms: until the session was there, milliseconds.
        memory_bytes: by which this process grew when it was loaded and had run the golden cases; None: unknown.
    """

    variant: str
    provider: str
    ok: bool
    median_ms: float | None
    reason: str
    threads: int = 0
    runs: int = 0
    load_ms: float | None = None
    memory_bytes: int | None = None

    @property
    def name(self) -> str:
        """Variant, provider and threads, as a sentence says them."""
        return f"{self.variant} on {self.provider}, {self.threads} thread{'s' * (self.threads != 1)}"


@dataclass(frozen=True)
class Evidence:
    """The table of one release on this machine.

    Attributes:
        release: its digest.
        fingerprint: `Fingerprint.digest` under which it is true.
        facts: of the fingerprint.
        at: unix seconds.
        chosen: position of the winner in the table.
        table: every candidate, in the order of the trials.
        note: what changed against the table before, as a sentence; "" for a first one.
    """

    release: str
    fingerprint: str
    facts: Mapping[str, str]
    at: float
    chosen: int
    table: tuple[Trial, ...]
    note: str = ""

    @property
    def winner(self) -> Trial:
        """The candidate that runs."""
        return self.table[self.chosen]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"v": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evidence:
        """Read `to_json`.

        Raises:
            ValueError: it is no such table.
        """
        try:
            if data["v"] != VERSION:
                raise ValueError(f"version {data['v']!r}")
            values = {name: data[name] for name in cls.__dataclass_fields__}
            found = cls(**{**values, "table": tuple(Trial(**row) for row in data["table"])})
            return found if found.winner.ok else _refuse("its winner is not ok")
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"no table of evidence: {error}") from error


def _refuse(why: str) -> Evidence:
    raise ValueError(why)


@dataclass(frozen=True)
class EvidenceStore:
    """Evidence of the releases that are kept."""

    folder: Path

    def read(self, release: str) -> Evidence | None:
        """What is known of a release, or None; a file that is damaged counts as none."""
        try:
            return Evidence.from_json(json.loads(self._file(release).read_bytes()))
        except (OSError, ValueError):
            return None

    def all(self) -> list[Evidence]:
        """Every table that can be read."""
        names = [path.stem for path in self.folder.glob("*.json")] if self.folder.is_dir() else []
        return [found for name in names if (found := self.read(name)) is not None]

    def write(self, evidence: Evidence) -> None:
        """Keep a table; it is on the disk when this returns.

        Raises:
            OSError: the disk does not take it.
        """
        self._put(self._file(evidence.release), json.dumps(evidence.to_json(), indent=1).encode())

    def keep(self, releases: Collection[str]) -> None:
        """Remove what is known of all other releases."""
        names = {self._file(release).name for release in releases}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.with_suffix(".json").name not in names:
                path.unlink(missing_ok=True)

    @contextmanager
    def loading(self, release: str, provider: str) -> Iterator[None]:
        """Mark that a provider loads a release in this process; a native crash leaves the mark behind.

        A disk that takes no mark costs the warning of a crash, and not the service.
        """
        before = self.died_loading(release)
        try:
            self._put_mark(release, before | {provider})
        except OSError as error:
            log.warning("%s is loaded without a mark, a crash would be forgotten: %s", provider, error)
        try:
            yield
        finally:
            with suppress(OSError):
                self._put_mark(release, before)

    def died_loading(self, release: str) -> frozenset[str]:
        """Providers that brought this process down when they loaded a release, until `forgive`."""
        try:
            return frozenset(str(name) for name in json.loads(self._mark(release).read_bytes()))
        except (OSError, ValueError, TypeError):
            return frozenset()

    def forgive(self, release: str) -> None:
        """Take the marks of a release away: a table says now what its providers did."""
        self._mark(release).unlink(missing_ok=True)

    def _put_mark(self, release: str, providers: frozenset[str]) -> None:
        if providers:
            self._put(self._mark(release), json.dumps(sorted(providers)).encode())
        else:
            self.forgive(release)

    def _mark(self, release: str) -> Path:
        return self._file(release).with_suffix(".loading")

    def _file(self, release: str) -> Path:
        return self.folder / f"{release.removeprefix('sha256:')}.json"

    def _put(self, path: Path, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, data, mode=MODE)
