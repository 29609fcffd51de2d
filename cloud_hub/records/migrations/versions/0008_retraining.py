"""How a training run was triggered and made, of which data, and how often it was begun."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_retraining"
down_revision = "0007_teachers"
branch_labels = None
depends_on = None

_COLUMNS = (("trigger", sa.String(length=16)), ("recipe", sa.String(length=64)), ("data", sa.String(length=64)))


def upgrade() -> None:
    """Add the columns; of older runs nothing of it is known."""
    for name, kind in _COLUMNS:
        op.add_column("training_runs", sa.Column(name, kind, nullable=False, server_default=""))
    op.add_column("training_runs", sa.Column("attempts", sa.Integer(), nullable=False, server_default="1"))
    op.create_index("ix_training_runs_alike", "training_runs", ["recipe", "data"], unique=False)


def downgrade() -> None:
    """Remove them."""
    op.drop_index("ix_training_runs_alike", "training_runs")
    for name in ("attempts", *(name for name, _ in _COLUMNS)):
        op.drop_column("training_runs", name)
