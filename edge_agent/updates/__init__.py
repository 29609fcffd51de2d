"""Updates: a release becomes active only by the table in `rules`, each state stored before it is acted on."""

from __future__ import annotations

from edge_agent.updates.machine import UpdateMachine
from edge_agent.updates.settings import UpdateSettings

__all__ = ["UpdateMachine", "UpdateSettings"]
