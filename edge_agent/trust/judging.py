"""What a device's clock may decide. Pure: times in, a sentence out.

A clock is wrong more often than a fleet is attacked: after a power loss it stands at 1970, a wrong setting puts it
years ahead. So time alone never takes away what serves; it only holds up what is new, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from edge_agent.trust.asking import Role


def expired(roles: Mapping[str, Role], now: float, enrolled_at: float, grace_s: float) -> str:
    """Which metadata is too old to be acted on, as a sentence; or "".

    Args:
        roles: what was found.
        now: unix seconds, as the device believes.
        enrolled_at: when the device was enrolled: before that it cannot be, and time is judged as of then.
        grace_s: seconds after their end for which metadata still counts, for devices and hubs that were away.
    """
    judged = max(now, enrolled_at) - grace_s
    ends = [(role.expires, name) for name, role in roles.items() if role.expires is not None]
    end, name = min(ends, default=(judged + 1, ""))
    if judged < end:
        return ""
    return (
        f"the signed metadata of {name} ended on {_day(end)}, and this device's clock says {_day(now)}. Set the clock "
        "if it is wrong; if it is right, the hub has renewed nothing since, or somebody keeps back what is newer"
    )


def impossible(now: float, enrolled_at: float) -> str:
    """Why times are not judged, as a sentence; or ""."""
    if now >= enrolled_at:
        return ""
    return f"this device's clock says {_day(now)}, before its enrolment: only versions are judged until it is set"


def _day(at: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
    except (ValueError, OverflowError, OSError):  # a clock, or an end, beyond what a calendar has
        return f"{at:.0f} s after 1970"
