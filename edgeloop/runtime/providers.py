"""Execution providers and how a session is set up for each policy."""

from __future__ import annotations

import os
from typing import Any, Literal

from edgeloop.runtime.ort import ort

CPU = "CPUExecutionProvider"
Policy = Literal["quiet", "balanced", "fast"]


def available_providers() -> tuple[str, ...]:
    """Providers of this onnxruntime build, in its own order of preference; whether they work is another question."""
    return tuple(ort.get_available_providers())


def runtime_version() -> str:
    """ONNX Runtime's version."""
    return str(ort.__version__)


def threads_of(policy: Policy) -> int:
    """Threads for one run: one on a quiet device, half of the processors on a balanced one, else all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"quiet": 1, "balanced": max(1, cores // 2), "fast": cores}[policy]


def session_options(policy: Policy, threads: int | None) -> Any:
    """``onnxruntime.SessionOptions`` for a policy.

    Threads that wait by spinning took 147 % of a core instead of 15 % at ten requests a second, so only ``fast`` spins.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or threads_of(policy)
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    spinning = "1" if policy == "fast" else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options
