"""What messaging tells of the device, and what status shows of messaging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

from edgeloop.protocol import DeviceAlarm, TrialReport, TrialRequest
from edgeloop.records import dataclass


@dataclass(frozen=True)
class Vitals:
    """What the composition root knows of the device; ``health`` holds plain figures and words."""

    variant: str = ""
    provider: str = ""
    placement: Mapping[str, int] = field(default_factory=dict)
    health: Mapping[str, Any] = field(default_factory=dict)
    alarms: tuple[DeviceAlarm, ...] = ()


@dataclass(frozen=True)
class MessagingState:
    """What status shows of messaging; before the line to the hub is made, its broker and its channel."""

    broker: str
    channel: str
    connected: bool = False
    last_error: str = ""
    mqtt: str = ""
    serial: int = 0
    malformed: int = 0
    stale: int = 0
    last_malformed: str = ""


class Measuring(Protocol):
    """Trials, as messaging sees them."""

    def follow(self, request: TrialRequest | None) -> None:
        """Take what the hub wants measured, or that it wants nothing; returns at once."""

    def report(self) -> TrialReport | None:
        """Where the trial stands that the hub asks for, or None when it asks for none."""
