"""The agent's ports: what its parts ask of one another, a page each, with the errors that leave it.

The composition root (``edge_agent.app``) is the only place that joins them.
"""

from __future__ import annotations

from edge_agent.ports.messaging import Measuring, MessagingState, Vitals
from edge_agent.ports.observing import Chosen, FeedbackItem, FeedbackResult, OpenAudit, Recorder
from edge_agent.ports.releases import Array, LoadedRelease
from edge_agent.ports.sampling import Sampling
from edge_agent.ports.serving import Serving, ServingCounters
from edge_agent.ports.trust import Trust, TrustState, Untrusted, Vouched, Work
from edge_agent.ports.updates import Reporter, Updates, UpdateStatus

__all__ = [
    "Array",
    "Chosen",
    "FeedbackItem",
    "FeedbackResult",
    "LoadedRelease",
    "Measuring",
    "MessagingState",
    "OpenAudit",
    "Recorder",
    "Reporter",
    "Sampling",
    "Serving",
    "ServingCounters",
    "Trust",
    "TrustState",
    "Untrusted",
    "UpdateStatus",
    "Updates",
    "Vitals",
    "Vouched",
    "Work",
]
