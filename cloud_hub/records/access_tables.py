"""The tables of access: tokens, sessions of people, approvals, and the audit log.

Times are unix seconds. Of a secret only its sha256 is kept. A column that ends in ``_json`` holds JSON text.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, LargeBinary, String, Table, Text

from cloud_hub.records.database import metadata

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("channels_json", Text),
    Column("models_json", Text),
    Column("created", Float, nullable=False),
    Column("created_by", String(256), nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
)

sessions = Table(
    "sessions",
    metadata,
    Column("secret_sha256", LargeBinary, primary_key=True),
    Column("subject", String(256), nullable=False),
    Column("display", String(256), nullable=False),
    Column("roles_json", Text, nullable=False),
    Column("channels_json", Text),
    Column("models_json", Text),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
)
Index("ix_sessions_expires", sessions.c.expires)

approvals = Table(
    "approvals",
    metadata,
    Column("rollout", String(128), primary_key=True),
    Column("who", String(256), primary_key=True),
    Column("at", Float, nullable=False),
    Column("reason", Text, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("who", String(256), nullable=False),
    Column("what", String(64), nullable=False),
    Column("about", String(256), nullable=False),
    Column("before_json", Text, nullable=False),
    Column("after_json", Text, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
Index("ix_audit_log_about", audit_log.c.about, audit_log.c.number)
