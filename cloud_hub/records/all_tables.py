"""Imports every module that defines tables, so that ``metadata`` is complete."""

from __future__ import annotations

import importlib.util

from cloud_hub.records import tables
from cloud_hub.records.database import metadata

if importlib.util.find_spec("cloud_hub.records.decision_tables"):
    importlib.import_module("cloud_hub.records.decision_tables")

__all__ = ["metadata", "tables"]
