"""What Linux says of heat and batteries, below /sys/class. Files that are not there, or make no sense, say nothing.

https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-thermal and sysfs-class-power.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SYS_CLASS = Path("/sys/class")
#: A zone that says something else than this is broken, and some are; °C.
COLDEST, HOTTEST = -40.0, 150.0


class Power(NamedTuple):
    """Charge of the device's batteries in percent, their mean; and whether one is being emptied."""

    percent: float
    emptying: bool


def hottest_celsius(root: Path = SYS_CLASS) -> float | None:
    """Temperature of the hottest zone, °C; None where there is none."""
    found = []
    for zone in root.glob("thermal/thermal_zone*"):
        value = _number(zone / "temp")  # thousandths of a degree
        if value is not None and COLDEST <= value / 1000 <= HOTTEST and _text(zone / "mode") != "disabled":
            found.append(value / 1000)
    return max(found, default=None)


def power(root: Path = SYS_CLASS) -> Power | None:
    """State of the device's own batteries; None where it has none."""
    charges, emptying = [], False
    for battery in _batteries(root):
        percent = _number(battery / "capacity")
        if percent is not None and 0 <= percent <= 100:
            charges.append(percent)
            emptying = emptying or _text(battery / "status") == "Discharging"
    return Power(sum(charges) / len(charges), emptying) if charges else None


def _batteries(root: Path) -> Iterator[Path]:
    for supply in root.glob("power_supply/*"):
        # A mouse or a headset has a battery too, of scope Device.
        if _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device":
            yield supply


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):  # a sensor that sleeps answers with an error
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
