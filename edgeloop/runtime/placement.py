"""On which provider the nodes of a session really run: asked where ONNX Runtime can say it, else seen in a profile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeloop.runtime.ort import ort
from edgeloop.runtime.providers import CPU, CUDA, TENSORRT

#: Since 1.24 a session can be asked.
ASKED = hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")
#: Providers that leave a graph's computing of its own shapes to the CPU on purpose, since shapes are read there
#: (``GetCpuPreferredNodes`` in ONNX Runtime's ``fallback_cpu_capability.cc``): a transformer whose lengths may vary has
#: some in every layer. They take all of these operators for anything else.
LEAVES_SHAPES = (CUDA, TENSORRT)
# fmt: off
OF_SHAPES = frozenset((
    "Shape", "Size", "Constant", "ConstantOfShape", "Range", "Gather", "GatherND", "Slice", "Concat", "Split",
    "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Expand", "Tile", "Identity", "Cast", "Add", "Sub", "Mul", "Div",
    "Mod", "Neg", "Abs", "Min", "Max", "Floor", "Ceil", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Not", "And", "Or", "Where", "NonZero", "ReduceProd", "ReduceMin", "ReduceMax", "ReduceSum", "ScatterND",
))
# fmt: on


def ask_for_placement(options: Any) -> None:
    """Set the session up so that `placement_of` can be answered."""
    if ASKED:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    else:
        import tempfile

        options.enable_profiling = True
        options.profile_file_prefix = str(Path(tempfile.mkdtemp(prefix="edgeloop-")) / "profile")


def placement_of(session: Any, feed: Callable[[], Mapping[str, Any]]) -> dict[str, int]:
    """Provider → number of nodes that run there.

    Args:
        session: an ``onnxruntime.InferenceSession``.
        feed: makes inputs for one run, for wheels that have to be watched rather than asked.
    """
    if not ASKED:
        return _profiled(session, feed)
    found: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        found[part.ep_name] += len(part.get_nodes())
    return dict(found)


def left_to_the_cpu(session: Any) -> list[str]:
    """Nodes of the CPU that compute more than shapes, each as its operator and name."""
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == CPU]
    nodes = [node for part in parts for node in part.get_nodes() if node.op_type not in OF_SHAPES]
    return [f"{node.op_type} {node.name}".strip() for node in nodes]


def _profiled(session: Any, feed: Callable[[], Mapping[str, Any]]) -> dict[str, int]:
    session.run(None, dict(feed()))
    path = Path(session.end_profiling())
    try:
        return placement_in_profile(path.read_text())
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def placement_in_profile(text: str) -> dict[str, int]:
    """Provider → number of nodes, from the JSON that ONNX Runtime's profiler writes."""
    nodes = {
        (event["args"]["provider"], event["name"])
        for event in json.loads(text)
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    }
    return dict(Counter(provider for provider, _ in nodes))
