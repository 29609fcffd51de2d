"""The tables of samples: what is kept of whom until when, and what was deleted.

Times are unix seconds. The inputs are in files of their own, which a deletion can take from the disk.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table

from cloud_hub.records.database import metadata

#: ``sha256`` is that of the file, with the secret salt in it; ``content`` that of the inputs alone, by which rows of a
#: dataset are ordered. ``source`` says who gave the label: ``device`` or ``person``; teachers' are in ``escalations``.
samples = Table(
    "samples",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("device", String(64), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("channel", String(64), nullable=False),
    Column("release", String(71), nullable=False),
    Column("prediction", String(128), nullable=False),
    Column("row", BigInteger, nullable=False),
    Column("segment", String(64), nullable=False),
    Column("form", String(16), nullable=False),
    Column("strategy", String(32), nullable=False),
    Column("probability", Float, nullable=False),
    Column("predicted", BigInteger, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("taken", Float, nullable=False),
    Column("received", Float, nullable=False),
    Column("expires", Float),
    Column("label", BigInteger),
    Column("source", String(16), nullable=False, server_default=""),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("content", String(64), nullable=False),
    sqlite_autoincrement=True,  # the number of a sample that was deleted is never another one's
)
Index("ix_samples_sent", samples.c.device, samples.c.epoch, samples.c.sequence, unique=True)
Index("ix_samples_row", samples.c.device, samples.c.prediction, samples.c.row)
Index("ix_samples_channel", samples.c.channel, samples.c.taken)
Index("ix_samples_expires", samples.c.expires)

#: What was deleted on somebody's request. A sample of it that is still on its way is not stored any more.
sample_deletions = Table(
    "sample_deletions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("device", String(64)),
    Column("channel", String(64)),
    Column("since", Float),
    Column("until", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("list_sha256", String(64), nullable=False),
)
Index("ix_sample_deletions_device", sample_deletions.c.device)
