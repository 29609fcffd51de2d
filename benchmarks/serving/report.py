"""Tables, ratios and bounds, printed."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.kit.processes import MB
from benchmarks.serving.comparison import Comparison
from benchmarks.serving.targets import AGENT, BARE, LIMIT, SHARED

_OURS = (LIMIT, BARE, AGENT, SHARED)


@dataclass(frozen=True)
class Footprint:
    """A target's memory after load, and what it uses while nobody asks."""

    pss: int
    idle_share: float


@dataclass(frozen=True)
class Bound:
    """A ratio that has to hold."""

    what: str
    found: float
    bound: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.found >= self.bound if self.at_least else self.found <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{self.what}: {self.found:.2f} (bound {sign} {self.bound:g}){'' if self.holds else ': does not hold'}"


def on(connections: int) -> str:
    """So many connections, in words."""
    return "1 connection" if connections == 1 else f"{connections} connections"


def machine() -> str:
    """The machine, in a line."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return (
        f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, "
        f"load average {os.getloadavg()[0]:.1f}; one worker, one thread a run"
    )


def table(title: str, comparison: Comparison) -> None:
    """A line for each target, its share of the limit in the last column."""
    print(f"\n{title}\n  {'':28}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'of limit':>10}")
    for name in comparison.names():
        rate, p50, p99 = (comparison.median(name, key) for key in ("per_second", "p50", "p99"))
        share = f"{comparison.ratio(name, LIMIT):10.3f}" if LIMIT in comparison.names() else ""
        print(f"  {name:28}{rate:11,.0f}{p50 * 1e3:9.2f}{p99 * 1e3:9.2f}{share}", flush=True)


def memory(title: str, footprints: Mapping[str, Footprint]) -> None:
    """What each target costs, as a multiple of the agent's."""
    print(f"\n{title}\n  {'':28}{'PSS MB':>11}{'of ours':>9}{'idle, of a core':>18}")
    for name, found in footprints.items():
        of_ours = found.pss / footprints[AGENT].pss if AGENT in footprints else math.nan
        print(f"  {name:28}{found.pss / MB:11.1f}{of_ours:9.2f}{found.idle_share:18.2%}")


def best_peer(comparison: Comparison) -> str | None:
    """Name of the peer that answers most requests."""
    peers = [name for name in comparison.names() if name not in _OURS]
    return max(peers, key=lambda name: comparison.median(name, "per_second"), default=None)


def mlp_bounds(at: Mapping[int, Comparison], tail: Comparison) -> list[Bound]:
    """What has to hold for the MLP."""
    found = [Bound(f"MLP, {on(n)}, agent : bare loop", c.ratio(AGENT, BARE), 0.6) for n, c in at.items()]
    for connections, least in ((8, 10.0), (32, 5.0)):
        if connections in at and (peer := best_peer(at[connections])):
            ratio, most = at[connections].ratio(AGENT, peer), at[connections].ratio(BARE, peer)
            what = f"MLP, {on(connections)}, agent : best peer ({peer}; the bare loop has {most:.1f})"
            found.append(Bound(what, ratio, least))
    return [*found, Bound("MLP, p99 at half load, agent : bare loop", tail.ratio(AGENT, BARE, "p99"), 2.0, False)]


def mobilenet_bounds(at: Mapping[int, Comparison], tail: Comparison) -> list[Bound]:
    """What has to hold for MobileNetV2. A single connection keeps one core busy, with us as with everybody."""
    found = []
    for connections, comparison in at.items():
        where = f"MobileNetV2, {on(connections)}"
        found.append(Bound(f"{where}, agent : in process", comparison.ratio(AGENT, LIMIT), 0.90))
        if SHARED in comparison.names():
            found.append(Bound(f"{where}, shared memory : in process", comparison.ratio(SHARED, LIMIT), 0.95))
        if connections > 1 and (peer := best_peer(comparison)):
            most = comparison.ratio(LIMIT, peer)
            what = f"{where}, agent : best peer ({peer}; in process has {most:.2f})"
            found.append(Bound(what, comparison.ratio(AGENT, peer), 3.0))
    return [
        *found,
        Bound("MobileNetV2, p99 at half load, agent : in process", tail.ratio(AGENT, LIMIT, "p99"), 1.5, False),
    ]
