"""The one error that leaves this package."""

from __future__ import annotations


class InsightsError(ValueError):
    """A window, profile or batch that cannot be used; the message says what is wrong and what to do."""
