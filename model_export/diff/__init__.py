"""What is different between two packages, and what the step from one to the other costs a device."""

from __future__ import annotations

from model_export.diff.comparing import Difference, compare

__all__ = ["Difference", "compare"]
