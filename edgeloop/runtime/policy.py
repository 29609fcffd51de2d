"""How much of the machine a run may take: threads, spinning, memory, processors.

==========  ==================  ========  ======  ==============  ================================================
policy      threads to choose   spinning  arena   memory pattern  processors
==========  ==================  ========  ======  ==============  ================================================
quiet       1                   no        no      no              any
balanced    1, half             no        yes     yes             the fast ones, where there are fast and slow ones
fast        1, half, all        yes       yes     yes             one for each thread, when it uses 4 or more
==========  ==================  ========  ======  ==============  ================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edgeloop.runtime.options import CpuOptions
from edgeloop.runtime.ort import ort

Policy = Literal["quiet", "balanced", "fast"]
#: With fewer processors a pinned thread would be in the way of whoever else runs there.
FEWEST_TO_PIN = 4


def processors() -> tuple[int, ...]:
    """Numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def thread_settings(policy: Policy, threads: int = 0) -> tuple[int, ...]:
    """Numbers of threads that are tried for one run, fewest first.

    Args:
        policy: how much of the machine a run may take.
        threads: a number that the owner wants; 0: measure those of the policy.
    """
    if threads:
        return (threads,)
    cores = len(processors())
    half = max(1, cores // 2)
    return {"quiet": (1,), "balanced": tuple(sorted({1, half})), "fast": tuple(sorted({1, half, cores}))}[policy]


def threads_of(policy: Policy) -> int:
    """Threads for one run where nothing is measured: the most that the policy allows."""
    return thread_settings(policy)[-1]


def session_options(policy: Policy, threads: int | None, own: CpuOptions | None = None) -> Any:
    """``onnxruntime.SessionOptions`` for a policy.

    Threads that wait by spinning took 147 % of a core instead of 15 % at ten requests a second, so only ``fast`` spins.
    An arena grows to the largest batch that ever ran and never shrinks, so ``quiet`` does without.

    Args:
        policy: how much of the machine a run may take.
        threads: for one run; None: the most that the policy allows.
        own: options of the CPU provider that the owner has set; they are stronger.
    """
    own = own or CpuOptions()
    threads = threads or threads_of(policy)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = _first(own.enable_cpu_mem_arena, policy != "quiet")
    options.enable_mem_pattern = _first(own.enable_mem_pattern, policy != "quiet")
    spinning = "1" if _first(own.allow_spinning, policy == "fast") else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    pinned = own.intra_op_thread_affinities or affinities(policy, threads, processors(), _speeds())
    if pinned is not None and threads > 1:
        options.add_session_config_entry("session.intra_op_thread_affinities", pinned)
    if own.spin_duration_us is not None:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(own.spin_duration_us))
    if own.set_denormal_as_zero:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def affinities(policy: Policy, threads: int, there: Sequence[int], speeds: Mapping[int, int]) -> str | None:
    """``session.intra_op_thread_affinities``, or None to leave it to the system.

    ONNX Runtime counts processors from 1 and wants a group for each thread but the first, which is the caller's.

    Args:
        policy: how much of the machine a run may take.
        threads: of one run.
        there: numbers of the processors that may be used, from 0.
        speeds: largest frequency of each processor, kHz, as far as known.
    """
    workers = threads - 1
    if workers < 1:
        return None
    if policy == "fast" and threads == len(there) >= FEWEST_TO_PIN:
        return ";".join(str(number + 1) for number in there[1:])
    fastest = max((speeds.get(number, 0) for number in there), default=0)
    big = [number for number in there if speeds.get(number, 0) == fastest]
    if policy == "balanced" and threads <= len(big) < len(there):
        return ";".join([",".join(str(number + 1) for number in big)] * workers)
    return None


def _speeds() -> dict[int, int]:
    found: dict[int, int] = {}
    for number in processors():
        path = Path(f"/sys/devices/system/cpu/cpu{number}/cpufreq/cpuinfo_max_freq")
        try:
            found[number] = int(path.read_text())
        except (OSError, ValueError):
            continue
    return found


def _first(own: bool | None, derived: bool) -> bool:
    return derived if own is None else own
