"""The one thread that stops what takes too long goes on, whatever happens to what it watches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from edgeloop.runtime.deadline import NEVER, Watchdog


class Watched:
    """Something whose time is now."""

    def __init__(self, then: Callable[[], object]) -> None:
        self.at, self._then = time.monotonic(), then
        self.fired = threading.Event()

    def fire(self) -> None:
        self.fired.set()
        self._then()


def test_one_that_cannot_be_stopped_leaves_the_others_their_deadlines(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("it cannot be stopped")

    dog = Watchdog()
    with caplog.at_level(logging.ERROR):
        for then in (fail, lambda: None):
            watched = Watched(then)
            dog.watch(watched)
            assert watched.fired.wait(10) and watched.at == NEVER
    assert "it cannot be stopped" in caplog.text
