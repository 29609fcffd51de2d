"""Trials: candidates of a model that somebody wants measured here, while the device has nothing else to do.

Nothing of a trial ever serves. Without the owner's consent (``trials`` in the settings) none of this is imported.
"""

from __future__ import annotations

from edge_agent.trials.rules import TrialRules
from edge_agent.trials.trials import Trials
from edge_agent.trials.under_way import Around

__all__ = ["Around", "TrialRules", "Trials"]
