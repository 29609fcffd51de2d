"""Settings that may change while the agent runs (SIGHUP), and those that need a restart. Pure."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import NamedTuple

from edge_agent.settings import Settings

#: Names of the settings that take effect at once; docs/reference/edge-agent.md lists them, and a test compares.
AT_RUN_TIME = frozenset(
    {
        "allow_cpu_fallback",
        "channel",
        "crash_loop_ends",
        "crash_loop_s",
        "disk_quota_bytes",
        "disk_reserve_bytes",
        "escalation_bytes_per_day",
        "escalation_per_day",
        "expiry_grace_s",
        "hot_celsius",
        "hub",
        "insights_aspects",
        "insights_bytes_per_day",
        "insights_min_group",
        "insights_segments",
        "privacy_days",
        "privacy_delta",
        "privacy_epsilon",
        "log_format",
        "log_level",
        "low_battery_percent",
        "max_fetch_bytes_per_s",
        "max_latency_ms",
        "max_memory_bytes",
        "max_release_bytes",
        "models",
        "probation_max_error_share",
        "probation_max_s",
        "probation_max_slowdown",
        "probation_min_predictions",
        "probation_s",
        "replay_bytes_per_s",
        "replay_jitter_s",
        "replay_rows_per_s",
        "report_s",
        "required_providers",
        "samples",
        "samples_bytes_per_day",
        "samples_per_day",
        "trial_budget_s",
    }
)


class Reloaded(NamedTuple):
    """Settings to go on with, names of those that have changed, and of those that wait for a restart."""

    settings: Settings
    changed: tuple[str, ...]
    need_restart: tuple[str, ...]


def reloaded(old: Settings, new: Settings) -> Reloaded:
    """What of new settings takes effect at once.

    Args:
        old: what the agent runs with.
        new: what was read now.
    """
    differ = [field.name for field in fields(Settings) if getattr(old, field.name) != getattr(new, field.name)]
    changed = tuple(name for name in differ if name in AT_RUN_TIME)
    settings = replace(old, **{name: getattr(new, name) for name in changed})
    return Reloaded(settings, changed, tuple(name for name in differ if name not in AT_RUN_TIME))
