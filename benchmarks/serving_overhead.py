"""What observing costs the throughput of serving, and how far the door is from a bare loop: MLP 64→128→10, HTTP.

    python -m benchmarks.serving_overhead

Two agents, one with windows and one without, and an asyncio loop of thirty lines that checks nothing (`kit/bare.py`),
each a process of its own that runs all the time. One load generator asks them in turn, for a tenth of a second each,
over 8 connections with binary tensors; so what the machine does otherwise meets all three alike. A block's ratio is
that of all its answers, so checkpoints and folds are in it; the median of the blocks counts.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from benchmarks.kit import mlp
from benchmarks.kit.agent import agent
from benchmarks.kit.load import Clients, Load
from benchmarks.kit.processes import running
from benchmarks.kit.requests import binary
from tests.integration.brokers import free_port

CONNECTIONS = 8
BLOCKS, TURNS, TURN_S = 15, 12, 0.1
LEAST_OBSERVED, LEAST_OF_BARE = 0.97, 0.6


def main() -> int:
    """Exit status: 0 when both bounds hold."""
    request = binary("/v2/models/mlp/infer", "x", np.random.default_rng(0).random((1, mlp.INPUTS), dtype=np.float32))
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        package = mlp.package(folder / "package")
        ports = {
            "with windows": stack.enter_context(agent(folder / "observing", package, observe=True)).port,
            "without": stack.enter_context(agent(folder / "plain", package, observe=False)).port,
            "bare loop": stack.enter_context(bare(folder)),
        }
        clients = {name: Clients(port, CONNECTIONS, request) for name, port in ports.items()}
        for client in clients.values():
            client.run(1.0)
        blocks = [block(clients) for _ in range(BLOCKS)]
        for client in clients.values():
            client.close()
    show(blocks)
    observed = ratio(blocks, "with windows", "without")
    of_bare = ratio(blocks, "with windows", "bare loop")
    print(f"with windows / without: {observed:.3f} (bound {LEAST_OBSERVED})")
    print(f"with windows / bare loop: {of_bare:.3f} (bound {LEAST_OF_BARE})")
    return 0 if observed >= LEAST_OBSERVED and of_bare >= LEAST_OF_BARE else 1


def block(clients: dict[str, Clients]) -> dict[str, Load]:
    """Each target's mean over some turns, taken in an order that moves on."""
    taken: dict[str, list[Load]] = {name: [] for name in clients}
    names = list(clients)
    for turn in range(TURNS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken[name].append(clients[name].run(TURN_S))
    return {
        name: Load(
            *(statistics.fmean(values) for values in zip(*((t.per_second, t.p50, t.p99) for t in turns), strict=True))
        )
        for name, turns in taken.items()
    }


def ratio(blocks: list[dict[str, Load]], one: str, other: str) -> float:
    """Median over the blocks."""
    return statistics.median(found[one].per_second / found[other].per_second for found in blocks)


def show(blocks: list[dict[str, Load]]) -> None:
    """A line for each target."""
    print(f"MLP 64 → 128 → 10 over HTTP, binary, {CONNECTIONS} connections, {os.cpu_count()} cores; medians")
    for name in blocks[0]:
        rate, p50, p99 = (
            statistics.median(getattr(found[name], key) for found in blocks) for key in ("per_second", "p50", "p99")
        )
        print(f"  {name:12} {rate:9,.0f} requests/s   p50 {p50 * 1e3:6.2f} ms   p99 {p99 * 1e3:6.2f} ms")


@contextlib.contextmanager
def bare(folder: Path) -> Iterator[int]:
    """The bare loop; gives its port."""
    port = free_port()
    onnx.save(mlp.model(), folder / "mlp.onnx")
    with running([sys.executable, "-m", "benchmarks.kit.bare", str(folder / "mlp.onnx"), str(port)]) as process:
        process.line()
        yield port


if __name__ == "__main__":
    sys.exit(main())
