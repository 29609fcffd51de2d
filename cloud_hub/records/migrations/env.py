"""Alembic's environment: it runs on the connection that the hub gives it."""

from __future__ import annotations

from alembic import context

from cloud_hub.records.all_tables import metadata

# render_as_batch: SQLite changes a column only by making the table anew.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
