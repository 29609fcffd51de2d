"""The table of trials: who asked which device to measure what, and what it answered."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table, Text

from cloud_hub.records.database import metadata

trials = Table(
    "trials",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("device", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked_by", String(256), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("ended", Float),
    Column("request_json", Text, nullable=False),
    Column("report_json", Text, nullable=False),
    Column("files_dropped", Boolean, nullable=False),
)
Index("ix_trials_state", trials.c.state, trials.c.number)
