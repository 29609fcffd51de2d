"""Who this device is: its key, its certificate, and whom it trusts. It gets them once, by ``edge-agent enrol``."""

from __future__ import annotations

from edge_agent.identity.store import Identity, IdentityError, NotEnrolled, load, require
from edge_agent.identity.tls import GivenTls, TlsOf, tls_context

__all__ = ["GivenTls", "Identity", "IdentityError", "NotEnrolled", "TlsOf", "load", "require", "tls_context"]
