"""Head statistics by groups of devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009_head_groups"
down_revision = "0008_retraining"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table. Labels that a hub has counted before are of no known device, and make no head any more."""
    op.create_table(
        "head_windows",
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("release", sa.String(length=71), nullable=False),
        sa.Column("device_group", sa.String(length=8), nullable=False),
        sa.Column("resolution_s", sa.Float(), nullable=False),
        sa.Column("interval_start", sa.Float(), nullable=False),
        sa.Column("feedback", sa.BigInteger(), nullable=False),
        sa.Column("merged", sa.Integer(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "channel", "release", "device_group", "resolution_s", "interval_start", name=op.f("pk_head_windows")
        ),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("head_windows")
