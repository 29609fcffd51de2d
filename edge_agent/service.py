"""The service manager (systemd): what it is told of the agent's life, and the watchdog that it keeps over it.

The protocol is sd_notify(3): datagrams of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names. Where no
manager has asked for it, nothing is said.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence

from edge_agent.logs import Log
from edge_agent.pulse import Pulse

log = Log(__name__)

#: How often the manager's status line is looked after, seconds.
STATUS_S = 5.0
#: Seconds by which a start that still goes on may take longer; it says so every few seconds.
EXTEND_S = 60


class ServiceManager:
    """Whoever has started the agent, if it wants to be told.

    Attributes:
        watchdog_s: seconds within which it wants a sign of life, or None.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read what it has asked for.

        Args:
            environment: of the process: ``NOTIFY_SOCKET``, ``WATCHDOG_USEC``, ``WATCHDOG_PID``.
        """
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        limit = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(limit) / 1e6 if self._address and meant and limit.isdecimal() and int(limit) else None
        self._said = ""

    @property
    def listens(self) -> bool:
        """Whether anybody wants to be told."""
        return bool(self._address)

    def starting(self, text: str) -> None:
        """The start takes long, and this is why: a model may have to be compiled. The time limit is pushed back."""
        self.status(text)
        self._tell(f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}")

    def ready(self) -> None:
        """The agent serves, or has read its settings again."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The agent reads its settings again; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The agent ends in order."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """A line for ``systemctl status``; said when it has changed."""
        line = " ".join(text.split())[:300]
        if line != self._said:
            self._said = line
            self._tell(f"STATUS={line}")

    def alive(self, pulses: Sequence[Pulse]) -> bool:
        """Give a sign of life, unless one of the threads hangs: then the manager shall start the agent again."""
        hanging = [pulse.name for pulse in pulses if pulse.hangs()]
        if hanging:
            log.error("the watchdog gets no sign of life: a thread hangs", threads=", ".join(hanging))
            return False
        self._tell("WATCHDOG=1")
        return True

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)  # a manager that does not read must not hold up a prediction
            try:
                channel.sendto("\n".join(lines).encode(), self._address)
            except OSError as error:
                log.warning("the service manager cannot be told", line=lines[0], reason=str(error))


async def attend(manager: ServiceManager, status: Callable[[], str], pulses: Sequence[Pulse]) -> None:
    """Keep a service manager informed, until cancelled: where the agent stands, and signs of life.

    That this runs is the event loop's own sign.

    Args:
        manager: nothing happens where it does not listen.
        status: gives the line for people.
        pulses: of the threads that the agent cannot do without.
    """
    while manager.listens:
        manager.status(status())
        if manager.watchdog_s is not None:
            manager.alive(pulses)
        # Twice within its limit, as sd_watchdog_enabled(3) advises, and once more.
        await asyncio.sleep(min((manager.watchdog_s or STATUS_S) / 3, STATUS_S))
