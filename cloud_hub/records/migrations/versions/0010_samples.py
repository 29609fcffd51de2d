"""Samples: inputs that devices send for retraining, and what was deleted of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010_samples"
down_revision = "0009_head_groups"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "samples",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("release", sa.String(length=71), nullable=False),
        sa.Column("prediction", sa.String(length=128), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column("segment", sa.String(length=64), nullable=False),
        sa.Column("form", sa.String(length=16), nullable=False),
        sa.Column("strategy", sa.String(length=32), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("predicted", sa.BigInteger(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("taken", sa.Float(), nullable=False),
        sa.Column("received", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.Column("label", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.String(length=16), server_default="", nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("content", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_samples")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_samples_sent", "samples", ["device", "epoch", "sequence"], unique=True)
    op.create_index("ix_samples_row", "samples", ["device", "prediction", "row"], unique=False)
    op.create_index("ix_samples_channel", "samples", ["channel", "taken"], unique=False)
    op.create_index("ix_samples_expires", "samples", ["expires"], unique=False)
    op.create_table(
        "sample_deletions",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=True),
        sa.Column("channel", sa.String(length=64), nullable=True),
        sa.Column("since", sa.Float(), nullable=True),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("list_sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sample_deletions")),
    )
    op.create_index("ix_sample_deletions_device", "sample_deletions", ["device"], unique=False)


def downgrade() -> None:
    """Remove the tables."""
    op.drop_table("sample_deletions")
    op.drop_table("samples")
