"""Where a release comes from and what came of it: one chain, read from what every part of the hub has written down.

Nothing is recorded for a lineage alone. A release names its base, and the run that made it; a run its alarm, its data
and what the gate said; a rollout its steps and approvals; the audit log who did what. So the chain is as true as those.
"""

from __future__ import annotations

from cloud_hub.lineage.lineages import Lineages
from cloud_hub.lineage.plain import plain

__all__ = ["Lineages", "plain"]
