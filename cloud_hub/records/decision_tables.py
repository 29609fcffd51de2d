"""The tables of the hub's decisions: rollouts, drift, alarms, retraining.

Times are unix seconds. Digests are ``sha256:…``. A column that ends in ``_json`` holds JSON text.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, String, Table, Text

from cloud_hub.records.database import metadata

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("channel", String(64), nullable=False),
    Column("candidate", String(71), nullable=False),
    Column("current", String(71), nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("fraction", Float, nullable=False),
    Column("started", Float, nullable=False),
    Column("step_started", Float, nullable=False),
    Column("done_since", Float),
    Column("ended", Float),
    Column("reason", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("policy_json", Text, nullable=False),
    Column("baseline_json", Text, nullable=False),
    Column("progress_json", Text, nullable=False),
    Column("started_by", String(256)),
)
Index("ix_rollouts_channel", rollouts.c.channel, rollouts.c.number)

rollout_history = Table(
    "rollout_history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rollout", String(128), nullable=False),
    Column("at", Float, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("fraction", Float, nullable=False),
    Column("reason", Text, nullable=False),
)
Index("ix_rollout_history_rollout", rollout_history.c.rollout, rollout_history.c.id)

drift_watches = Table(
    "drift_watches",
    metadata,
    Column("channel", String(64), primary_key=True),
    Column("release", String(71), primary_key=True),
    Column("cursor", Float, nullable=False),
    Column("streak", Integer, nullable=False),
    Column("streak_since", Float),
    Column("streak_settled", Float),
    Column("quiet", Integer, nullable=False),
    Column("evaluations", Integer, nullable=False),
    Column("evaluated_at", Float, nullable=False),
    Column("report_json", Text, nullable=False),
    Column("baseline", LargeBinary),
)

drift_days = Table(
    "drift_days",
    metadata,
    Column("channel", String(64), primary_key=True),
    Column("release", String(71), primary_key=True),
    Column("day", BigInteger, primary_key=True),
    Column("predictions", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

drift_alarms = Table(
    "drift_alarms",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("channel", String(64), nullable=False),
    Column("release", String(71), nullable=False),
    Column("state", String(16), nullable=False),
    Column("since", Float, nullable=False),
    Column("settled", Float, nullable=False),
    Column("raised", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Column("closed", Float),
    Column("closed_reason", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("effect", Float, nullable=False),
    Column("aspects_json", Text, nullable=False),
    Column("scope", String(16), nullable=False),
    Column("devices_json", Text, nullable=False),
    Column("segments_json", Text, nullable=False),
    Column("p_value", Float, nullable=False),
    Column("suggestion", Text, nullable=False),
    Column("acknowledged", Float),
    Column("acknowledged_by", Text, nullable=False),
)
Index("ix_drift_alarms_channel", drift_alarms.c.channel, drift_alarms.c.id)

#: The latest stretch of each device and segment: counts in bins, of one size whatever the traffic. It says who carries
#: a drift and no more, so it is written beside the transaction that counts.
light_windows = Table(
    "light_windows",
    metadata,
    Column("channel", String(64), primary_key=True),
    Column("kind", String(8), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("release", String(71), nullable=False),
    Column("state_json", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("updated", Float, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("channel", String(64)),
    Column("created", Float, nullable=False),
    Column("stopped", Text, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("webhook", Integer, nullable=False),
    Column("message", String(64), nullable=False),
    Column("event", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", Float, nullable=False),
    Column("due", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("ended", Float),
    Column("outcome", Text, nullable=False),
)
Index("ix_webhook_deliveries_due", webhook_deliveries.c.state, webhook_deliveries.c.due)

training_runs = Table(
    "training_runs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("channel", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cause", Text, nullable=False),
    Column("trigger", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("interrupted", Boolean, nullable=False),
    Column("parent", String(71), nullable=False),
    Column("alarm", Integer),
    Column("labels", BigInteger, nullable=False),
    Column("recipe", String(64), nullable=False),
    Column("data", String(64), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("release", String(71)),
    Column("rollout", String(128)),
    Column("verdict_json", Text, nullable=False),
    Column("candidate_json", Text, nullable=False),
)
Index("ix_training_runs_channel", training_runs.c.channel, training_runs.c.id)
Index("ix_training_runs_alike", training_runs.c.recipe, training_runs.c.data)
