"""The service manager's protocol, and pulses, with a clock that is driven."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from edge_agent.pulse import PATIENCE_S, Pulse
from edge_agent.service import ServiceManager


def test_nothing_is_said_where_nobody_asked() -> None:
    manager = ServiceManager({})
    manager.ready()
    assert not manager.listens and manager.watchdog_s is None


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    asked = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "30000000"}
    assert ServiceManager(asked).watchdog_s == 30.0
    assert ServiceManager({**asked, "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 30.0
    assert ServiceManager({**asked, "WATCHDOG_PID": "1"}).watchdog_s is None
    assert ServiceManager({**asked, "WATCHDOG_USEC": "soon"}).watchdog_s is None


def test_a_manager_that_is_gone_ends_nothing() -> None:
    ServiceManager({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready()


def test_a_thread_that_hangs_is_not_said_to_live(tmp_path: Path) -> None:
    now = 0.0
    pulse = Pulse("updates", clock=lambda: now)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "s"))
        end.settimeout(5)
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "1000000"})
        assert manager.alive([pulse]), "nothing is expected before the first beat"
        pulse.beat(10)
        now = 10 + PATIENCE_S
        assert manager.alive([pulse])
        now += 1
        assert not manager.alive([pulse])
        pulse.beat(10)
        assert manager.alive([pulse])
        manager.status("a\nb  c")
        manager.status("a b c")
        manager.stopping()
        manager.starting("an engine is built, 3 s so far")
        said = [end.recv(100).decode() for _ in range(7)]
        assert said[:5] == ["WATCHDOG=1"] * 3 + ["STATUS=a b c", "STOPPING=1"]
        assert said[5:] == ["STATUS=an engine is built, 3 s so far", "EXTEND_TIMEOUT_USEC=60000000"]
