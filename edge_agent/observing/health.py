"""How the device is while it serves: one sample now and then, for the window's health sums."""

from __future__ import annotations

from typing import Any, NamedTuple


class HealthSample(NamedTuple):
    """One look at the device; None where it cannot be measured.

    Attributes:
        rss_bytes: resident memory of this process.
        cpu_share: processor use of this process since the last look, 1.0 = one core.
        temperature_c: the hottest sensor, °C.
    """

    rss_bytes: float | None
    cpu_share: float | None
    temperature_c: float | None


class DeviceHealth:
    """Takes samples. The first has no ``cpu_share``, since there was no look before it."""

    def __init__(self) -> None:
        self._process: Any = None

    def sample(self) -> HealthSample:
        """One look; costs up to a few milliseconds where a device has many sensors."""
        import psutil  # with the first sample, long after the first answer

        first = self._process is None
        self._process = self._process or psutil.Process()
        try:
            rss: float | None = float(self._process.memory_info().rss)
            cpu: float | None = self._process.cpu_percent(None) / 100
        except psutil.Error:
            rss = cpu = None
        return HealthSample(rss, None if first else cpu, _hottest())


def _hottest() -> float | None:
    import psutil

    read = getattr(psutil, "sensors_temperatures", None)  # Linux and FreeBSD only
    if read is None:
        return None
    try:
        found = [entry.current for entries in read().values() for entry in entries if entry.current is not None]
    except (OSError, psutil.Error, ValueError):
        return None
    return float(max(found)) if found else None
