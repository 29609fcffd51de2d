"""Where nodes run is asked of ONNX Runtime, or seen in a profile where it cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeloop.package import Package
from edgeloop.runtime import CPU, ModelSession, placement
from edgeloop.runtime.placement import placement_in_profile


def test_asked_and_watched_say_the_same(tiny: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = ModelSession.load(tiny, "cpu-fp32", threads=1)
    monkeypatch.setattr(placement, "ASKED", False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    watched = ModelSession.load(tiny, "cpu-fp32", threads=1)
    assert list(asked.placement) == list(watched.placement) == [CPU]
    assert 0 < watched.placement[CPU] <= asked.placement[CPU], "a profile counts what is left after fusing"
    assert list(tmp_path.iterdir()) == [], "the profile is gone"
    assert len(watched.run({"x": tiny.golden().inputs["x"]})) == 3


def test_each_node_is_counted_once() -> None:
    events = [
        {"cat": "Session", "name": "model_run"},
        {"cat": "Node", "name": "a_kernel_time", "args": {"provider": CPU}},
        {"cat": "Node", "name": "a_kernel_time", "args": {"provider": CPU}},
        {"cat": "Node", "name": "b_kernel_time", "args": {"provider": "XExecutionProvider"}},
        {"cat": "Node", "name": "b_fence_before", "args": {"op_name": "Gemm"}},
    ]
    assert placement_in_profile(json.dumps(events)) == {CPU: 1, "XExecutionProvider": 1}
