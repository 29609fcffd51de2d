"""The update life cycle: one transition table, and the decisions around it. Pure: values and a time in, values out."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Protocol

from edgeloop.records import dataclass

IDLE, FETCHING, VERIFYING, STAGED = "idle", "fetching", "verifying", "staged"
TESTING, PROBATION, COMMITTED, ROLLED_BACK = "testing", "probation", "committed", "rolled_back"

#: What may follow what. Any failure leads to rolled_back; the last committed release serves all along.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    IDLE: frozenset({FETCHING, ROLLED_BACK}),
    FETCHING: frozenset({VERIFYING, ROLLED_BACK, IDLE, FETCHING}),
    VERIFYING: frozenset({STAGED, ROLLED_BACK, IDLE, FETCHING}),
    STAGED: frozenset({TESTING, ROLLED_BACK}),
    TESTING: frozenset({PROBATION, ROLLED_BACK}),
    PROBATION: frozenset({COMMITTED, ROLLED_BACK}),
    COMMITTED: frozenset({FETCHING, IDLE, ROLLED_BACK}),
    ROLLED_BACK: frozenset({FETCHING, IDLE, ROLLED_BACK}),
}
#: A restart in one of these means that nobody saw the release do well to the end: it is rolled back, never resumed.
UNPROVEN = frozenset({STAGED, TESTING, PROBATION})
#: A power cut is no fault of a release, and a release that brings the agent down again and again is: so often an agent
#: may end uncleanly while the release is unproven, after which the offer is refused for good.
MOST_ENDS = 3

#: First wait after a failure that may pass, and the longest, in seconds.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
#: A hub may ask for a longer wait than that, but not for a device that never comes back.
LONGEST_ASKED_S = 3600.0


@dataclass(frozen=True)
class CrashLoop:
    """When a committed release is taken for one that kills the agent.

    Attributes:
        ends: so many unclean ends bring the release before it back.
        seconds: a release that has served for so long in one life is settled, and not counted any more.
    """

    ends: int = 3
    seconds: float = 600.0


class IllegalTransition(AssertionError):
    """A fault of ours: the table does not allow this step."""


@dataclass(frozen=True)
class Offer:
    """A release that this device should run.

    Attributes:
        release: its digest.
        name: of the package.
        version: of the package.
        rollout: the rollout that offers it, or None when it is the channel's current release.
        hub: base URL that its files come from, or "".
        index_size: bytes of its index.
        target: its path in the fleet's signed metadata, or "".
    """

    release: str
    name: str
    version: str
    rollout: str | None
    hub: str
    index_size: int = 0
    target: str = ""

    @property
    def key(self) -> str:
        """What a refusal is remembered under: the same release offered by another rollout is offered anew."""
        return offer_key(self.release, self.rollout)


class Reference(Protocol):
    """A release as a channel document names it."""

    @property
    def digest(self) -> str:
        """``sha256:…``."""

    @property
    def name(self) -> str:
        """Name of the package."""

    @property
    def version(self) -> str:
        """Version of the package."""

    @property
    def index_size(self) -> int:
        """Bytes of its index."""

    @property
    def target(self) -> str:
        """Its path in the fleet's signed metadata, or ""."""


def check_transition(state: str, following: str) -> None:
    """Raise `IllegalTransition` unless the table allows the step."""
    if following not in TRANSITIONS[state]:
        raise IllegalTransition(f"{state} may not be followed by {following}")


def offer_key(release: str, rollout: str | None) -> str:
    """Key of an offer: the rollout, or ``current``, and the digest."""
    return f"{rollout or 'current'}/{release}"


def wanted(
    offered: Reference | None,
    *,
    in_rollout: str | None,
    hub: str,
    committed: str | None,
    left: str | None,
    refused: Collection[str],
) -> Offer | None:
    """What to go for, or None when there is nothing to do.

    Args:
        offered: what the channel document has for this device.
        in_rollout: id of the rollout that offers it, or None.
        hub: base URL of the files.
        committed: digest of the committed release.
        left: digest of the release that a person has left; it is not taken again before another was offered.
        refused: keys of offers that this device has refused for good.
    """
    if offered is None or offered.digest in (committed, left):
        return None
    size, target = offered.index_size, offered.target
    offer = Offer(offered.digest, offered.name, offered.version, in_rollout, hub, size, target)
    return None if offer.key in refused else offer


def too_many_ends(ends: int, crash_loop: CrashLoop, *, something_before: bool) -> bool:
    """Whether a committed release is taken for one that kills the agent, and can be left."""
    return something_before and ends >= crash_loop.ends


def wait_s(failures: int, chance: random.Random, asked_s: float = 0.0) -> float:
    """Seconds to wait after so many failures in a row: exponential, with full jitter so that a fleet spreads out.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Args:
        failures: in a row.
        chance: where the jitter comes from.
        asked_s: what the hub asks for (``Retry-After``); the jitter comes on top, so that not all come at that moment.
    """
    jitter = chance.uniform(FIRST_WAIT_S / 2, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures, 30)))
    return min(max(asked_s, 0.0), LONGEST_ASKED_S) + jitter
