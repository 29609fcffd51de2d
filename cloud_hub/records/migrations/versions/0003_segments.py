"""Windows by segment and length of interval; how to know a window again; labels that agree."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_segments"
down_revision = "0002_drift"
branch_labels = None
depends_on = None

_COUNTS = ("predictions", "errors", "feedback", "escalations")
#: What a hub had that was never told another length of interval.
_RESOLUTION_S = 60.0


def upgrade() -> None:
    """Add the columns; make the table of windows anew, since its key changes."""
    op.add_column("marks", sa.Column("checksum", sa.LargeBinary(), nullable=True))
    op.add_column("marks", sa.Column("newest", sa.Float(), nullable=True))
    op.add_column("marks", sa.Column("owner", sa.String(length=64), nullable=True))
    op.create_index("ix_marks_epoch", "marks", ["epoch"], unique=False)
    op.add_column("device_totals", sa.Column("misdated", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("insight_totals", sa.Column("correct", sa.BigInteger(), nullable=False, server_default="0"))
    op.drop_index("ix_windows_updated", "windows")
    op.rename_table("windows", "windows_before")
    op.create_table(
        "windows",
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("release", sa.String(length=71), nullable=False),
        sa.Column("segment", sa.String(length=64), nullable=False),
        sa.Column("resolution_s", sa.Float(), nullable=False),
        sa.Column("interval_start", sa.Float(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.Column("merged", sa.Integer(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "channel", "release", "segment", "resolution_s", "interval_start", name=op.f("pk_windows_by_segment")
        ),
    )
    names = f"interval_start, {', '.join(_COUNTS)}, merged, updated, data"
    op.execute(
        f"INSERT INTO windows (channel, release, segment, resolution_s, {names}) "
        f"SELECT channel, release, '', {_RESOLUTION_S}, {names} FROM windows_before"
    )
    op.drop_table("windows_before")
    op.create_index("ix_windows_updated", "windows", ["channel", "updated"], unique=False)


def downgrade() -> None:
    """Segments that are not told apart any more cannot be written back: restore a copy instead."""
    raise NotImplementedError("a hub that is older cannot read these windows; restore the copy made before the update")
