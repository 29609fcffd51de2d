"""Rollouts: `rules` decides, `driver` acts, `records` remembers."""

from __future__ import annotations

from cloud_hub.rollouts.driver import Rollouts
from cloud_hub.rollouts.records import Rollout

__all__ = ["Rollout", "Rollouts"]
