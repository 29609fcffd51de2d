"""Signed metadata: what vouches for channels and releases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_trust"
down_revision = "0003_segments"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "trust_metadata",
        sa.Column("role", sa.String(length=80), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("received", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("role", "version", name=op.f("pk_trust_metadata")),
    )


def downgrade() -> None:
    """Devices have seen these versions: a hub that forgets them could not tell them anything again."""
    raise NotImplementedError(
        "devices refuse a hub that has lost its metadata; restore the copy made before the update"
    )
