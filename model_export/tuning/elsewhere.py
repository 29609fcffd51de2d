"""Candidates measured on a real device that follows a hub, instead of on the machine that builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeloop.package import Package
from model_export.errors import DeviceTrialError
from model_export.hub import Hub
from model_export.publishing.trial import best_rows, measure_on_device


@dataclass(frozen=True)
class Figure:
    """What a device measured of one variant: median of one row, growth of the process."""

    median_ms: float
    memory_bytes: int | None


#: Measures every variant of a package; one that is wrong there, or cannot run, is not in the answer.
Elsewhere = Callable[[Package], dict[str, Figure]]


def on_device(hub: Hub, device: str, on_step: Callable[[str], None] = lambda text: None) -> Elsewhere:
    """Measuring on a device.

    Args:
        hub: that it follows; whoever asks has to be a publisher of the model there.
        device: its name; its owner has to allow trials.
        on_step: told what goes on.
    """

    def measure(package: Package) -> dict[str, Figure]:
        rows = best_rows(measure_on_device(package, hub, device, on_step=on_step))
        if not rows:
            raise DeviceTrialError(f"{device} could run no candidate, fp32 included", "model-export trial tells why")
        return {name: Figure(row.median_us / 1e3, row.memory_bytes or None) for name, row in rows.items()}

    return measure
