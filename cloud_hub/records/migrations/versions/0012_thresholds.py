"""Thresholds of escalation that are fitted, and how hard each escalated row was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012_thresholds"
down_revision = "0011_costs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("escalations", sa.Column("hardness", sa.Float(), nullable=True))
    op.create_table(
        "fitted_thresholds",
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("release", sa.String(length=71), nullable=False),
        sa.Column("recipe_json", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("share", sa.Float(), nullable=True),
        sa.Column("accuracy", sa.Float(), nullable=True),
        sa.Column("teacher", sa.String(length=64), nullable=False),
        sa.Column("teacher_accuracy", sa.Float(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("effective", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("fitted", sa.Float(), nullable=False),
        sa.Column("looked", sa.Float(), nullable=False),
        sa.Column("curve_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "release", name=op.f("pk_fitted_thresholds")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("fitted_thresholds")
    op.drop_column("escalations", "hardness")
