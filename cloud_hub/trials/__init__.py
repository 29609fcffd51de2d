"""Trials: candidates of a model that devices measure for a person. `asking` steers, `records` remembers."""

from __future__ import annotations

from cloud_hub.trials.asking import Trials
from cloud_hub.trials.records import Trial

__all__ = ["Trial", "Trials"]
