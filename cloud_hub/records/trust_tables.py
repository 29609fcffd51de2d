"""The table of signed metadata: every version that a device may still ask for."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, LargeBinary, String, Table

from cloud_hub.records.database import metadata

#: ``content`` is a metadata file byte for byte, ``received`` the unix seconds at which it was taken or signed.
trust_metadata = Table(
    "trust_metadata",
    metadata,
    Column("role", String(80), primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("received", Float, nullable=False),
)
