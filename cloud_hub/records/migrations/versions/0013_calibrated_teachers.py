"""Whether a teacher's confidence was calibrated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013_calibrated_teachers"
down_revision = "0012_thresholds"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("escalations", sa.Column("calibrated", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("escalations", "calibrated")
