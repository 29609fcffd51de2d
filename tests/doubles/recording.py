"""What a data plane hands to a recorder, made of outputs by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.ports import LoadedRelease, Recorder


def record(
    recorder: Recorder,
    loaded: LoadedRelease,
    name: str,
    inputs: Any,
    outputs: Mapping[str, Any],
    latency_ns: int,
    segment: str = "",
) -> None:
    """Record one answered request."""
    places = {output: place for place, output in enumerate(outputs)}
    recorder.record(loaded, name, inputs, list(outputs.values()), places, segment, latency_ns, latency_ns)
    recorder.settle()
