"""Trials: candidates of a model that devices measure."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014_trials"
down_revision = "0013_calibrated_teachers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "trials",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(length=256), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("request_json", sa.Text(), nullable=False),
        sa.Column("report_json", sa.Text(), nullable=False),
        sa.Column("files_dropped", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_trials")),
        sa.UniqueConstraint("id", name=op.f("uq_trials_id")),
    )
    op.create_index("ix_trials_state", "trials", ["state", "number"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_trials_state", table_name="trials")
    op.drop_table("trials")
