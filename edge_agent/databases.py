"""SQLite files that the agent writes: each is whole when it is opened, or put aside and begun anew."""

from __future__ import annotations

import glob
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

Prepare = Callable[[sqlite3.Connection], object]
"""Makes the tables, or brings them up to date."""


def opened(path: Path, prepare: Prepare) -> sqlite3.Connection:
    """A database: WAL, ``synchronous=FULL``, every statement its own transaction, for one thread at a time.

    Raises:
        sqlite3.DatabaseError: it is damaged; as its subclass OperationalError: the disk refuses.
    """
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def opened_or_anew(path: Path, prepare: Prepare, tell: Callable[[Path, sqlite3.Error], None]) -> sqlite3.Connection:
    """The same; a file that is damaged is put aside, for whoever wants to look into it, and a new one is begun.

    Only the latest of those is kept: a card that damages file after file must not be filled with them as well.

    Args:
        path: of the file.
        prepare: makes the tables.
        tell: told of the file that was put aside, and why.

    Raises:
        sqlite3.OperationalError: the disk refuses, which is no damage.
        OSError: the file cannot be put aside.
    """
    try:
        return opened(path, prepare)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        for before in path.parent.glob(f"{glob.escape(path.name)}.damaged-*"):
            before.unlink(missing_ok=True)
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        path.rename(aside)
        for leftover in ("-wal", "-shm"):
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        tell(aside, error)
        return opened(path, prepare)
