"""When a device has time for a trial. Pure: values in, a sentence out."""

from __future__ import annotations

from edge_agent.updates.rules import COMMITTED, IDLE, ROLLED_BACK
from edgeloop.records import dataclass

#: States of the update machine in which nothing is under way.
AT_REST = frozenset({IDLE, COMMITTED, ROLLED_BACK})


@dataclass(frozen=True)
class TrialRules:
    """What the owner lets a trial take.

    Attributes:
        max_bytes: of a trial's files on the disk.
        max_s: seconds of measuring, all candidates together.
        max_memory_bytes: of the process that measures one.
        busy_per_s: rows a second that the agent answers, above which the device is not idle.
    """

    max_bytes: int = 256 << 20
    max_s: float = 300.0
    max_memory_bytes: int = 1 << 30
    busy_per_s: float = 1.0


@dataclass(frozen=True)
class Doing:
    """What the device does now.

    Attributes:
        update: state of the update machine.
        strain: why the agent holds back, or "".
        rows_per_s: answered in the last seconds, all models together.
    """

    update: str
    strain: str
    rows_per_s: float


def busy(rules: TrialRules, doing: Doing) -> str:
    """Why there is no time for a trial now, or ""."""
    if doing.update not in AT_REST:
        return f"an update is under way ({doing.update})"
    if doing.strain:
        return f"the device holds back: {doing.strain}"
    if doing.rows_per_s > rules.busy_per_s:
        return f"the device answers {doing.rows_per_s:.1f} rows a second; it is idle up to {rules.busy_per_s:g}"
    return ""
