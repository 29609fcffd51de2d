"""What trainers say of a run, for people: one file a run, bounded."""

from __future__ import annotations

import logging
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)

#: Bytes of one log. A trainer that says more is not listened to any more.
MOST_BYTES = 1 << 20
#: Characters of one line.
MOST_CHARACTERS = 2_000
#: Logs that are kept.
KEPT = 200
_FULL = "… the log is full; nothing more is written"


class RunLogs:
    """The logs of all runs.

    Args:
        folder: of the logs; it is made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def add(self, run: int, line: str, now: float) -> None:
        """Add a line to a run's log; a log that cannot be written ends no run."""
        when = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        text = f"{when} {' '.join(line.split())[:MOST_CHARACTERS]}\n".encode()
        path = self._path(run)
        try:
            with self._lock, path.open("ab") as file:
                size = file.tell()
                if size + len(text) <= MOST_BYTES:
                    file.write(text)
                elif size <= MOST_BYTES:  # said once: with it the file is longer than a log may be
                    file.write(f"{when} {_FULL}".encode().ljust(MOST_BYTES - size) + b"\n")
        except OSError as error:
            log.warning("the log of run %s cannot be written: %s", run, error)

    def lines(self, run: int, limit: int) -> list[str]:
        """The last lines of a run's log; none where there is none, or none any more."""
        try:
            with self._path(run).open(encoding="utf-8", errors="replace") as file:
                return [line.rstrip() for line in deque(file, limit)]
        except FileNotFoundError:
            return []

    def tidy(self) -> None:
        """Remove the oldest ones."""
        for old in sorted(self._folder.glob("run-*.log"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def _path(self, run: int) -> Path:
        return self._folder / f"run-{run:08}.log"
