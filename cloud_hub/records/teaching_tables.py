"""The tables of teachers: who there is, what was asked and answered, what it cost.

Times are unix seconds. A column that ends in ``_json`` holds JSON text.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, String, Table, Text, false

from cloud_hub.records.database import metadata

teachers = Table(
    "teachers",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("spec_json", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
)

#: One row of one prediction; it is asked about once, however often the device sends it.
escalations = Table(
    "escalations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("device", String(64), nullable=False),
    Column("prediction", String(128), nullable=False),
    Column("row", BigInteger, nullable=False),
    Column("channel", String(64), nullable=False),
    Column("release", String(71), nullable=False),
    Column("segment", String(64), nullable=False),
    Column("form", String(16), nullable=False),
    Column("probability", Float, nullable=False),
    Column("audit", Boolean, nullable=False),
    Column("wait", Boolean, nullable=False),
    Column("predicted", BigInteger, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("received", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("answered", Float),
    Column("label", BigInteger),
    Column("sure", Float),
    Column("calibrated", Boolean, nullable=False, server_default=false()),
    Column("teacher", String(64), nullable=False),
    Column("ms", Float, nullable=False),
    Column("cost", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("learn", Boolean, nullable=False),
    Column("told", Boolean, nullable=False),
    Column("claimed_by", String(256)),
    Column("claimed_until", Float),
    Column("skips", Integer, nullable=False, server_default="0"),
    Column("hardness", Float),
)
Index("ix_escalations_row", escalations.c.device, escalations.c.prediction, escalations.c.row, unique=True)
Index("ix_escalations_channel", escalations.c.channel, escalations.c.number)
Index("ix_escalations_state", escalations.c.state, escalations.c.told, escalations.c.number)
Index("ix_escalations_received", escalations.c.received)

#: Inputs that a person has to see, or that the channel's policy keeps: the message as the device sent it.
escalation_inputs = Table(
    "escalation_inputs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("until", Float),
    Column("data", LargeBinary, nullable=False),
)
Index("ix_escalation_inputs_until", escalation_inputs.c.until)

#: What was spent, and what calls under way may cost at most.
teacher_spending = Table(
    "teacher_spending",
    metadata,
    Column("day", BigInteger, primary_key=True),
    Column("teacher", String(64), primary_key=True),
    Column("channel", String(64), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("spent", Float, nullable=False),
    Column("reserved", Float, nullable=False),
)

#: The threshold of escalation that was fitted to a release on a channel, and why; ``recipe_json``: for which policy.
fitted_thresholds = Table(
    "fitted_thresholds",
    metadata,
    Column("channel", String(64), primary_key=True),
    Column("release", String(71), primary_key=True),
    Column("recipe_json", Text, nullable=False),
    Column("threshold", Float),
    Column("source", String(16), nullable=False),
    Column("share", Float),
    Column("accuracy", Float),
    Column("teacher", String(64), nullable=False),
    Column("teacher_accuracy", Float),
    Column("rows", BigInteger, nullable=False),
    Column("effective", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("fitted", Float, nullable=False),
    Column("looked", Float, nullable=False),
    Column("curve_json", Text, nullable=False),
)
