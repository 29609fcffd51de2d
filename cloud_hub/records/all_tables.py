"""Imports every module that defines tables, so that ``metadata`` is complete."""

from __future__ import annotations

from cloud_hub.records import (
    access_tables,
    cost_tables,
    decision_tables,
    identity_tables,
    sample_tables,
    tables,
    teaching_tables,
    trial_tables,
    trust_tables,
)
from cloud_hub.records.database import metadata

__all__ = [
    "access_tables",
    "cost_tables",
    "decision_tables",
    "identity_tables",
    "metadata",
    "sample_tables",
    "tables",
    "teaching_tables",
    "trial_tables",
    "trust_tables",
]
