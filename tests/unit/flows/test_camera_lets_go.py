"""A thread that a camera's driver has held for too long does no harm to the one that came after it."""

from __future__ import annotations

import threading

import pytest

from edge_agent.flow_settings import SOURCES, read_all
from edge_agent.flows.sources import camera
from edge_agent.flows.sources.camera import CameraSource


class Capture:
    """A driver that gives nothing until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def read(self) -> tuple[bool, None]:
        self.let_go.wait(60.0)
        return False, None

    def release(self) -> None:
        return None


def test_what_a_thread_finds_that_was_told_to_stop_is_not_the_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    captures = [Capture(), Capture()]
    opened = iter(captures)
    monkeypatch.setattr(camera, "_open", lambda device: next(opened))
    monkeypatch.setattr(camera, "JOIN_S", 0.01)
    (settings,) = read_all(SOURCES, [{"kind": "camera", "name": "door", "sinks": ["x"], "device": "0"}])
    source = CameraSource(settings)  # type: ignore[arg-type]
    source.open()
    held = source._grabber
    assert held is not None
    source.close()
    assert held.is_alive()
    source.open()
    captures[0].let_go.set()
    held.join(30.0)
    assert not held.is_alive()
    assert source.next(0.01) is None, "the camera that was opened anew gives frames still"
    captures[1].let_go.set()
    source.close()
