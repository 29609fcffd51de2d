"""What was used by day, channel and model; prices and budgets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011_costs"
down_revision = "0010_samples"
branch_labels = None
depends_on = None

_INTEGERS = (
    *("predictions", "device_ns", "uplink_bytes", "downlink_bytes"),
    *("escalation_bytes", "sample_bytes", "teacher_calls"),
)


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "cost_days",
        sa.Column("day", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0") for name in _INTEGERS),
        sa.Column("teacher_money", sa.Float(), nullable=False, server_default="0"),
        sa.Column("training_s", sa.Float(), nullable=False, server_default="0"),
        sa.Column("storage_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("day", "channel", "model", name=op.f("pk_cost_days")),
    )
    op.create_table(
        "cost_settings",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("document_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cost_settings")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("cost_settings")
    op.drop_table("cost_days")
