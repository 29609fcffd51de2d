"""What a fleet costs: amounts that are counted, prices that a person sets, and budgets that stop things."""

from __future__ import annotations

from cloud_hub.costs.costs import Costs

__all__ = ["Costs"]
