"""Teachers, what they were asked and what they answered, and what it cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_teachers"
down_revision = "0006_identities"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "teachers",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("spec_json", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_teachers")),
    )
    op.create_table(
        "escalations",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("prediction", sa.String(length=128), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("release", sa.String(length=71), nullable=False),
        sa.Column("segment", sa.String(length=64), nullable=False),
        sa.Column("form", sa.String(length=16), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("audit", sa.Boolean(), nullable=False),
        sa.Column("wait", sa.Boolean(), nullable=False),
        sa.Column("predicted", sa.BigInteger(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.Float(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answered", sa.Float(), nullable=True),
        sa.Column("label", sa.BigInteger(), nullable=True),
        sa.Column("sure", sa.Float(), nullable=True),
        sa.Column("teacher", sa.String(length=64), nullable=False),
        sa.Column("ms", sa.Float(), nullable=False),
        sa.Column("cost", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("learn", sa.Boolean(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.Column("claimed_by", sa.String(length=256), nullable=True),
        sa.Column("claimed_until", sa.Float(), nullable=True),
        sa.Column("skips", sa.Integer(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_escalations")),
    )
    op.create_index("ix_escalations_row", "escalations", ["device", "prediction", "row"], unique=True)
    op.create_index("ix_escalations_channel", "escalations", ["channel", "number"], unique=False)
    op.create_index("ix_escalations_state", "escalations", ["state", "told", "number"], unique=False)
    op.create_index("ix_escalations_received", "escalations", ["received"], unique=False)
    op.create_table(
        "escalation_inputs",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("until", sa.Float(), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_escalation_inputs")),
    )
    op.create_index("ix_escalation_inputs_until", "escalation_inputs", ["until"], unique=False)
    op.create_table(
        "teacher_spending",
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("teacher", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("tokens_in", sa.BigInteger(), nullable=False),
        sa.Column("tokens_out", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.Float(), nullable=False),
        sa.Column("reserved", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("day", "teacher", "channel", name=op.f("pk_teacher_spending")),
    )


def downgrade() -> None:
    """Remove the tables."""
    for table in ("teacher_spending", "escalation_inputs", "escalations", "teachers"):
        op.drop_table(table)
