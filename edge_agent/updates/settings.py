"""What the owner of a device decides about updates."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from dataclasses import field, replace
from pathlib import Path

from edge_agent.updates.fetch import FetchLimits
from edge_agent.updates.probation import ProbationRules
from edge_agent.updates.rules import CrashLoop
from edge_agent.updates.testing import TestingRules
from edgeloop.records import dataclass


@dataclass(frozen=True)
class UpdateSettings:
    """Everything but ``data`` may change while the machine runs.

    Attributes:
        data: the agent's folder.
        device: its name, by which a rollout chooses it.
        hub: base URL of files, for channel documents that name none.
        limits: bounds of fetching.
        tests: what a release must show before it serves.
        probation: what it must show while it is watched.
        crash_loop: when a committed release is taken for one that kills the agent.
        audit_timeout_s: seconds that an audit may take.
        models: that the device takes; empty: the one that it runs.
        chance: where jitter comes from.
        tls: gives the context for HTTPS; None: what the device's system trusts.
    """

    data: Path
    device: str
    hub: str
    limits: FetchLimits
    tests: TestingRules
    probation: ProbationRules
    crash_loop: CrashLoop = field(default_factory=CrashLoop)
    audit_timeout_s: float = 120.0
    models: tuple[str, ...] = ()
    chance: random.Random = field(default_factory=random.Random)
    tls: Callable[[], ssl.SSLContext] | None = None

    def __post_init__(self) -> None:
        """What tests measure is kept in the agent's folder unless they say otherwise."""
        if self.tests.data is None:
            object.__setattr__(self, "tests", replace(self.tests, data=self.data))
