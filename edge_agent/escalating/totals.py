"""What has become of escalations since the start."""

from __future__ import annotations

from edgeloop.records import dataclass


@dataclass(frozen=True)
class Totals:
    """Running totals of rows since the start.

    Attributes:
        sent: that left.
        bytes: of their messages.
        answered: for which a label has come.
        outvoted: of these, those where the device's own answer stands against the teacher's.
        unanswered: for which the hub said that there will be none.
        late: whose client had waited long enough before.
        unsent: that were drawn and could not leave.
        failed: requests that could not be looked at.
    """

    sent: int = 0
    bytes: int = 0
    answered: int = 0
    outvoted: int = 0
    unanswered: int = 0
    late: int = 0
    unsent: int = 0
    failed: int = 0
