"""The tables of costs: what was used, by day, channel and model; and what a person has said of prices and budgets."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, String, Table, Text

from cloud_hub.records.database import metadata

#: Amounts that are added up as they come, in the transaction that counts them.
ADDED = ("predictions", "device_ns", "uplink_bytes", "downlink_bytes")
#: Amounts that are measured again and again for the day under way.
MEASURED = ("escalation_bytes", "sample_bytes", "teacher_calls", "teacher_money", "training_s", "storage_bytes")
_REAL = frozenset({"teacher_money", "training_s"})

#: ``day`` is the number of days since 1970, UTC. A channel or a model is "" where it is not known, or does not matter.
cost_days = Table(
    "cost_days",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("channel", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    *(
        Column(name, Float if name in _REAL else BigInteger, nullable=False, server_default="0")
        for name in (*ADDED, *MEASURED)
    ),
)

cost_settings = Table(
    "cost_settings",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("document_json", Text, nullable=False),
)
