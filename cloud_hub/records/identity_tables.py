"""The tables of identities: enrolment tokens, devices that are enrolled, and their certificates.

Times are unix seconds. Nothing here is a secret: of a token there is a hash, of a key its public half's.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table, Text

from cloud_hub.records.database import metadata

enrolments = Table(
    "enrolments",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("secret_hash", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("channels_json", Text, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("replaces", Boolean, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("withdrawn", Float),
)

enrolment_uses = Table(
    "enrolment_uses",
    metadata,
    Column("enrolment", String(12), primary_key=True),
    Column("public_key", String(64), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("at", Float, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("channels_json", Text, nullable=False),
    Column("enrolment", String(12), nullable=False),
    Column("enrolled", Float, nullable=False),
    Column("revoked", Float),
    Column("reason", Text, nullable=False),
)

device_certificates = Table(
    "device_certificates",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("enrolment", String(12), nullable=False),
    Column("pem", Text, nullable=False),
    Column("issued", Float, nullable=False),
    Column("ends", Float, nullable=False),
    Column("revoked", Float),
)
Index("ix_device_certificates_device", device_certificates.c.device, device_certificates.c.issued)
