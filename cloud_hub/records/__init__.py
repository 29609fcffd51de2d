"""The hub's records: one SQLAlchemy MetaData, one writer, migrations that run at start."""

from __future__ import annotations

from cloud_hub.records.database import Database, metadata

__all__ = ["Database", "metadata"]
