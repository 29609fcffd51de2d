"""The records of a new hub for tests that are not about how they come about.

The migrations run once a process, and what they have made is copied from then on.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cloud_hub.records import Database


def new_records(folder: Path) -> Database:
    """The records in a folder, as the migrations leave them where there were none."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "hub.db"
    if not file.exists():
        file.write_bytes(_migrated())
    return Database.in_folder(folder)


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        db = Database.in_folder(Path(folder))
        db.migrate()
        db.close()
        assert [path.name for path in Path(folder).iterdir()] == ["hub.db"], "all of it is in the one file"
        return (Path(folder) / "hub.db").read_bytes()
