"""Alarms say where and how certain, people acknowledge them, webhooks tell of them; light windows of devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_drift"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and make the tables."""
    for column in (
        sa.Column("scope", sa.String(length=16), nullable=False, server_default="fleet"),
        sa.Column("devices_json", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("segments_json", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("p_value", sa.Float(), nullable=False, server_default="1"),
        sa.Column("suggestion", sa.Text(), nullable=False, server_default=""),
        sa.Column("acknowledged", sa.Float(), nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=False, server_default=""),
    ):
        op.add_column("drift_alarms", column)
    op.create_table(
        "light_windows",
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("release", sa.String(length=71), nullable=False),
        sa.Column("state_json", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "kind", "name", name=op.f("pk_light_windows")),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("stopped", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("webhook", sa.Integer(), nullable=False),
        sa.Column("message", sa.String(length=64), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index("ix_webhook_deliveries_due", "webhook_deliveries", ["state", "due"])
