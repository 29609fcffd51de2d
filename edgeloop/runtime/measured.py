"""One candidate measured in a process of its own: latency of one row, memory, golden cases, and bounds on all of it.

Nobody vouches for what a trial measures, so the process has none of this one's secrets in its environment, is the first
that a machine short of memory ends, and is killed when it takes longer or more than it may.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeloop.package import Package, PackageError
from edgeloop.records import dataclass
from edgeloop.runtime.errors import InferenceError, ModelLoadError
from edgeloop.runtime.golden import agreeing_cases, check_golden
from edgeloop.runtime.isolated import GRACE_S, ask_child, describe, end_in_time, load_described, open_described
from edgeloop.runtime.launch import Launch
from edgeloop.runtime.memory import resident_bytes

#: The first runs of a session allocate and compile; they are run and not counted.
WARM_UP = 5
#: Of a slow model so many runs are timed, as long as there is time at all.
LEAST_CALLS = 5
#: Share of the deadline after which no further run begins: the answer has to be written, too.
TIMED_SHARE = 0.6
#: What a process of this needs from the one that starts it; anything else could be a secret.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ", "LANG")


@dataclass(frozen=True)
class Bounds:
    """What one measurement may take.

    Attributes:
        calls: runs that are timed, at most.
        seconds: from the start of the process to its end.
        memory_bytes: of the whole process; 0: any.
    """

    calls: int
    seconds: float
    memory_bytes: int = 0


@dataclass(frozen=True)
class Measured:
    """What one candidate did.

    Attributes:
        reason: why it is no good, or ""; the figures then are what was found before that.
        median_us: median time of one row, microseconds.
        p95_us: that 95 % of the runs keep, microseconds.
        calls: runs that were timed.
        load_us: until the session was there, microseconds.
        memory_bytes: by which the process grew at most; 0: unknown.
        golden_cases: that were run.
        golden_ok: of them, those with the reference's decision.
    """

    reason: str
    median_us: float = 0.0
    p95_us: float = 0.0
    calls: int = 0
    load_us: float = 0.0
    memory_bytes: int = 0
    golden_cases: int = 0
    golden_ok: int = 0


def measure_in_child(
    package: Package, variant: str, launch: Launch, bounds: Bounds, stop: Callable[[], str] = lambda: ""
) -> Measured:
    """Measure one candidate in a process of its own.

    Args:
        package: audited.
        variant: name of the variant.
        launch: how it is run.
        bounds: of the process.
        stop: asked again and again; why to give up now, or "".
    """
    end = time.monotonic() + bounds.seconds

    def watch(child: int) -> str:
        if time.monotonic() > end:
            return f"it took longer than {bounds.seconds:.3g} s and was stopped"
        takes = _resident_of(child)
        if bounds.memory_bytes and takes > bounds.memory_bytes:
            return f"it took {takes:,} bytes of memory and was stopped; {bounds.memory_bytes:,} are allowed"
        return stop()

    request = describe(package, variant, launch) | {"calls": bounds.calls, "seconds": bounds.seconds}
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return _read(ask_child("edgeloop.runtime.measured", request, watch, environment=environment))


def _read(answer: Mapping[str, Any]) -> Measured:
    """What the child wrote; a process that ran a stranger's graph may write anything."""
    found: dict[str, float] = {}
    for name in Measured.__dataclass_fields__:
        value = answer.get(name, 0)
        if name == "reason":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
            return Measured("the process that measured it wrote no figures")
        found[name] = float(value) if name.endswith("_us") else int(value)
    return Measured(str(answer["reason"]), **found)  # type: ignore[arg-type]


def _resident_of(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import psutil

        return int(psutil.Process(process).memory_info().rss)
    except Exception:  # it has just ended, or this system does not say
        return 0


# ── the child ────────────────────────────────────────────────────────────────────────────────────


def main() -> int:
    """The child."""
    request = json.loads(sys.stdin.buffer.read())
    end_in_time(request, request["seconds"] + GRACE_S)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # Linux: this one goes first
    print(json.dumps(_measure(request, time.monotonic() + request["seconds"] * TIMED_SHARE)), flush=True)
    return 0


def _measure(request: Mapping[str, Any], end: float) -> dict[str, Any]:
    found: dict[str, Any] = {"reason": ""}
    try:
        package = open_described(request)
        golden = package.golden()
        before, start = resident_bytes() or 0, time.perf_counter_ns()
        session = load_described(package, request)
        found["load_us"] = (time.perf_counter_ns() - start) / 1e3
        report = check_golden(session, package, max(0.1, end - time.monotonic()))
        found |= {"golden_cases": report.cases, "golden_ok": agreeing_cases(report), "reason": report.reason}
        if report.ok:
            row = {name: values[:1] for name, values in golden.inputs.items()}
            times: list[float] = []
            for run in range(WARM_UP + request["calls"]):
                left = end - time.monotonic()
                if left <= 0 and len(times) >= LEAST_CALLS:
                    break
                start = time.perf_counter_ns()
                session.run(row, None, max(left, 1.0))
                if run >= WARM_UP:
                    times.append((time.perf_counter_ns() - start) / 1e3)
            times.sort()
            found |= {"median_us": _quantile(times, 0.5), "p95_us": _quantile(times, 0.95), "calls": len(times)}
        found["memory_bytes"] = max(0, _peak_bytes() - before)
    except (ModelLoadError, InferenceError, PackageError) as error:
        found["reason"] = str(error)
    return found


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _peak_bytes() -> int:
    """Most memory that this process had at once, where the system says so; else what it has now."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resident_bytes() or 0
