"""Is the device under strain, so that the agent should hold back? One pure decision, with hysteresis.

Heat, an emptying battery and memory beyond the budget each give a level; the highest counts. A level is left only when
the reading is clearly better than what it was entered with: an agent that holds back cools the device, and must not
flap because of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import IntEnum

from edgeloop.records import dataclass


class Level(IntEnum):
    """How much the agent holds back."""

    NORMAL = 0
    #: Updates and trials wait, one run of a model at a time.
    GENTLE = 1
    #: As gentle, and a device that has no release yet waits as well; sources are slowed.
    MINIMAL = 2


#: So much hotter than the limit is minimal; so much cooler than a threshold leaves its level. °C.
MUCH_HOTTER, COOLER = 10.0, 5.0
#: This share of the battery's limit is minimal; so many points above a threshold leave its level.
MUCH_LOWER, FULLER = 0.5, 5.0
#: Below this share of the memory budget its level is left.
LEANER = 0.9


@dataclass(frozen=True)
class StrainRules:
    """The owner's limits; 0 switches one off.

    Attributes:
        hot_celsius: of the hottest zone.
        low_battery_percent: while the battery is being emptied.
        max_memory_bytes: resident memory of the agent.
    """

    hot_celsius: float = 0.0
    low_battery_percent: float = 0.0
    max_memory_bytes: int = 0


@dataclass(frozen=True)
class Readings:
    """One look at the device; None where it cannot be measured.

    Attributes:
        celsius: the hottest zone.
        battery_percent: what the batteries still hold.
        emptying: whether a battery is being emptied.
        resident_bytes: of the agent.
    """

    celsius: float | None = None
    battery_percent: float | None = None
    emptying: bool = False
    resident_bytes: int | None = None


@dataclass(frozen=True)
class Strain:
    """The decision.

    Attributes:
        level: how much to hold back.
        reason: for people; "" when the level is normal.
        by: the level that each reading gives.
    """

    level: Level = Level.NORMAL
    reason: str = ""
    by: Mapping[str, Level] = field(default_factory=dict)


def judge(rules: StrainRules, readings: Readings, before: Strain) -> Strain:
    """Decide from a look at the device.

    Args:
        rules: the owner's.
        readings: of now.
        before: the decision of the look before, or ``Strain()``.
    """
    found = {
        "heat": _heat(rules, readings, before.by.get("heat", Level.NORMAL)),
        "battery": _battery(rules, readings, before.by.get("battery", Level.NORMAL)),
        "memory": _memory(rules, readings, before.by.get("memory", Level.NORMAL)),
    }
    words = {
        "heat": f"the device is hot: {readings.celsius or 0:.0f} °C (hot_celsius {rules.hot_celsius:g})",
        "battery": (
            f"the battery is low: {readings.battery_percent or 0:.0f} % (low_battery_percent "
            f"{rules.low_battery_percent:g})"
        ),
        "memory": (
            f"the agent takes {readings.resident_bytes or 0:,} bytes of memory (max_memory_bytes "
            f"{rules.max_memory_bytes:,})"
        ),
    }
    reason = "; ".join(words[name] for name, level in found.items() if level)
    return Strain(max(found.values()), reason, found)


def holds_updates(strain: Strain, *, first: bool) -> str:
    """Why an update has to wait, or "".

    Args:
        strain: of now.
        first: whether nothing serves yet: such a device is of no use, and waits only when it must.
    """
    return strain.reason if strain.level >= (Level.MINIMAL if first else Level.GENTLE) else ""


def _heat(rules: StrainRules, readings: Readings, before: Level) -> Level:
    if not rules.hot_celsius or readings.celsius is None:
        return Level.NORMAL
    hot = rules.hot_celsius
    thresholds = {Level.GENTLE: hot, Level.MINIMAL: hot + MUCH_HOTTER}
    kept = [lv for lv, limit in thresholds.items() if readings.celsius >= limit - (COOLER if before >= lv else 0.0)]
    return max(kept, default=Level.NORMAL)


def _battery(rules: StrainRules, readings: Readings, before: Level) -> Level:
    if not rules.low_battery_percent or readings.battery_percent is None or not readings.emptying:
        return Level.NORMAL
    low = rules.low_battery_percent
    thresholds = {Level.GENTLE: low, Level.MINIMAL: low * MUCH_LOWER}
    left = readings.battery_percent
    return max(
        (lv for lv, limit in thresholds.items() if left < limit + (FULLER if before >= lv else 0.0)),
        default=Level.NORMAL,
    )


def _memory(rules: StrainRules, readings: Readings, before: Level) -> Level:
    if not rules.max_memory_bytes or readings.resident_bytes is None:
        return Level.NORMAL
    limit = rules.max_memory_bytes * (LEANER if before else 1.0)
    return Level.GENTLE if readings.resident_bytes > limit else Level.NORMAL
