"""Background work is started again when it fails, and stopped in order, in time."""

from __future__ import annotations

import threading
import time

import pytest

from cloud_hub import supervise
from cloud_hub.supervise import Supervisor, Work, every


def wait_for(condition: object, timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]  # any callable
        assert time.monotonic() < until
        time.sleep(0.005)


def test_failed_work_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "BACKOFF_S", (0.01, 0.02))
    runs = []

    def work(stop: threading.Event) -> None:
        runs.append(1)
        if len(runs) < 4:
            raise ValueError("not yet")
        stop.wait()

    supervisor = Supervisor()
    supervisor.start("flaky", work)
    wait_for(lambda: len(runs) == 4)
    (state,) = supervisor.states
    assert (state.name, state.alive, state.failures, state.last_error) == ("flaky", True, 3, "ValueError: not yet")
    assert supervisor.stop(1.0) == []


def test_the_last_started_is_stopped_first() -> None:
    order: list[str] = []
    supervisor = Supervisor()

    def work(name: str) -> Work:
        def until_stopped(stop: threading.Event) -> None:
            stop.wait()
            order.append(name)

        return until_stopped

    for name in ("a", "b", "c"):
        supervisor.start(name, work(name))
    assert supervisor.stop(2.0) == []
    assert order == ["c", "b", "a"]


def test_work_that_does_not_stop_is_named_and_cut_off() -> None:
    ended = threading.Event()
    supervisor = Supervisor()
    supervisor.start("deaf", lambda stop: ended.wait())  # type: ignore[arg-type]  # its answer is not used
    began = time.monotonic()
    assert supervisor.stop(0.1) == ["deaf"]
    assert time.monotonic() - began < 1.0
    ended.set()


def test_every_ticks_until_it_is_stopped() -> None:
    ticks: list[int] = []
    supervisor = Supervisor()
    supervisor.start("clock", every(0.01, lambda: ticks.append(1)))
    wait_for(lambda: len(ticks) >= 3)
    supervisor.stop(1.0)
    count = len(ticks)
    time.sleep(0.05)
    assert len(ticks) == count
