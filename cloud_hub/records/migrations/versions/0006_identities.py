"""Enrolment tokens, devices that are enrolled, and their certificates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_identities"
down_revision = "0005_access"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "enrolments",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("channels_json", sa.Text(), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("replaces", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("withdrawn", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolments")),
    )
    op.create_table(
        "enrolment_uses",
        sa.Column("enrolment", sa.String(length=12), nullable=False),
        sa.Column("public_key", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("enrolment", "public_key", name=op.f("pk_enrolment_uses")),
    )
    op.create_table(
        "identities",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("channels_json", sa.Text(), nullable=False),
        sa.Column("enrolment", sa.String(length=12), nullable=False),
        sa.Column("enrolled", sa.Float(), nullable=False),
        sa.Column("revoked", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_identities")),
    )
    op.create_table(
        "device_certificates",
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("public_key", sa.String(length=64), nullable=False),
        sa.Column("enrolment", sa.String(length=12), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("issued", sa.Float(), nullable=False),
        sa.Column("ends", sa.Float(), nullable=False),
        sa.Column("revoked", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_device_certificates")),
    )
    op.create_index("ix_device_certificates_device", "device_certificates", ["device", "issued"], unique=False)


def downgrade() -> None:
    """Remove the tables."""
    for table in ("device_certificates", "identities", "enrolment_uses", "enrolments"):
        op.drop_table(table)
