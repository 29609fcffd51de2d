"""The tables of releases, channels, devices and insights.

Times are unix seconds. Digests are ``sha256:…``. A column that ends in ``_json`` holds canonical JSON text.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, String, Table, Text

from cloud_hub.records.database import metadata

releases = Table(
    "releases",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    Column("parent", String(71)),
    Column("source", String(32), nullable=False),
    Column("created", Float, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("index_bytes", LargeBinary, nullable=False),
    Column("metrics_json", Text, nullable=False),
    Column("lineage_json", Text, nullable=False),
    Column("published_by", String(256)),
)

channels = Table(
    "channels",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("serial", BigInteger, nullable=False),
    Column("current", String(71)),
    Column("previous", String(71)),
    Column("rollout_id", String(128)),
    Column("candidate", String(71)),
    Column("fraction", Float),
    Column("policy_json", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("channel", String(64)),
    Column("release", String(71)),
    Column("update_state", String(32)),
    Column("update_release", String(71)),
    Column("update_rollout", String(128)),
    Column("clock_skew_s", Float),
    Column("reported_json", Text),
    Column("reported_at", Float),
    Column("presence_json", Text),
    Column("desired_json", Text),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
)
Index("ix_devices_channel", devices.c.channel)

marks = Table(
    "marks",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("checksum", LargeBinary),
    Column("newest", Float),
    Column("owner", String(64)),
)
Index("ix_marks_epoch", marks.c.epoch)

device_totals = Table(
    "device_totals",
    metadata,
    Column("device", String(64), primary_key=True),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("predictions", "errors", "feedback", "escalations", "nonfinite", "windows")
    ),
    Column("gaps", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("misdated", BigInteger, nullable=False, server_default="0"),
    Column("classes_json", Text, nullable=False),
)

windows = Table(
    "windows",
    metadata,
    Column("channel", String(64), primary_key=True),
    Column("release", String(71), primary_key=True),
    Column("segment", String(64), primary_key=True),
    Column("resolution_s", Float, primary_key=True),
    Column("interval_start", Float, primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in ("predictions", "errors", "feedback", "escalations")),
    Column("merged", Integer, nullable=False),
    Column("updated", Float, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
Index("ix_windows_updated", windows.c.channel, windows.c.updated)

head_windows = Table(
    "head_windows",
    metadata,
    Column("channel", String(64), primary_key=True),
    Column("release", String(71), primary_key=True),
    Column("device_group", String(8), primary_key=True),
    Column("resolution_s", Float, primary_key=True),
    Column("interval_start", Float, primary_key=True),
    Column("feedback", BigInteger, nullable=False),
    Column("merged", Integer, nullable=False),
    Column("updated", Float, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

insight_totals = Table(
    "insight_totals",
    metadata,
    Column("channel", String(64), primary_key=True),
    Column("release", String(71), primary_key=True),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("predictions", "errors", "feedback", "escalations", "nonfinite", "windows")
    ),
    Column("correct", BigInteger, nullable=False, server_default="0"),
    Column("classes_json", Text, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("device", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Column("received", Float, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
Index("ix_quarantine_device", quarantine.c.device, quarantine.c.id)

quarantine_counts = Table(
    "quarantine_counts",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("reason", String(32), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
