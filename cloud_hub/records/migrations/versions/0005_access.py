"""Tokens, sessions, approvals, the audit log; who published a release, who started a rollout."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_access"
down_revision = "0004_trust"
branch_labels = None
depends_on = None

_REFUSE = "the audit log is only added to"


def upgrade() -> None:
    """Add the tables, and what keeps the audit log from being changed."""
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("channels_json", sa.Text(), nullable=True),
        sa.Column("models_json", sa.Text(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(length=256), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.Column("revoked", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_table(
        "sessions",
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("display", sa.String(length=256), nullable=False),
        sa.Column("roles_json", sa.Text(), nullable=False),
        sa.Column("channels_json", sa.Text(), nullable=True),
        sa.Column("models_json", sa.Text(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_sessions")),
    )
    op.create_index("ix_sessions_expires", "sessions", ["expires"], unique=False)
    op.create_table(
        "approvals",
        sa.Column("rollout", sa.String(length=128), nullable=False),
        sa.Column("who", sa.String(length=256), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "who", name=op.f("pk_approvals")),
    )
    op.create_table(
        "audit_log",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(length=256), nullable=False),
        sa.Column("what", sa.String(length=64), nullable=False),
        sa.Column("about", sa.String(length=256), nullable=False),
        sa.Column("before_json", sa.Text(), nullable=False),
        sa.Column("after_json", sa.Text(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_about", "audit_log", ["about", "number"], unique=False)
    op.add_column("releases", sa.Column("published_by", sa.String(length=256), nullable=True))
    op.add_column("rollouts", sa.Column("started_by", sa.String(length=256), nullable=True))
    for statement in _only_added_to(op.get_bind().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    """Who had rights, and who did what, is not thrown away: restore a copy instead."""
    raise NotImplementedError("a hub that is older asks nobody who they are; restore the copy made before the update")


def _only_added_to(dialect: str) -> list[str]:
    """What makes the database refuse to change or delete a row of the audit log."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER audit_log_no_{change} BEFORE {change} ON audit_log "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSE}'); END"
            for change in ("UPDATE", "DELETE")
        ] + [
            # INSERT OR REPLACE would take a row's place without a DELETE.
            "CREATE TRIGGER audit_log_in_order BEFORE INSERT ON audit_log "
            "WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM audit_log) "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSE}'); END"
        ]
    return [
        f"CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSE}'; END $$",
        "CREATE TRIGGER audit_log_only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()",
    ]
