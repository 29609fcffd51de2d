"""What the agent costs a device before it does anything: `make bench`, or ``python -m benchmarks.footprint [--quick]``.

The checkout is installed as a device installs it, into an environment of its own; everything below runs from there, so
that no page of a library is shared with another Python. Starts are taken in turns with those of a bare Python process
that loads the same network and runs it once. No broker is there: the agent looks for it all the time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnx
import psutil

from benchmarks.kit import mlp
from benchmarks.kit.agent import Server, agent
from benchmarks.kit.environments import agent_environment, site_packages
from benchmarks.kit.load import Clients
from benchmarks.kit.processes import MB, Running, cpu_seconds, pss, running
from benchmarks.kit.requests import binary
from edgeloop.package import Package
from tests.integration.brokers import free_port

MOST_PSS_MB, MOST_OF_BARE_START, MOST_IDLE_SHARE = 90.0, 2.0, 0.01
LARGEST, CONNECTIONS, SETTLE_S = 8, 8, 2.0
REQUEST = binary("/v2/models/mlp/infer", "x", np.random.default_rng(0).random((1, mlp.INPUTS), dtype=np.float32))
#: Loads the network, runs it once, says so, and stays until it is told to go.
BARE = """
import os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(["probabilities"], {"x": np.zeros((1, 64), np.float32)})
print("answered", flush=True)
sys.stdin.readline()
"""


class Device:
    """Where the agent is installed, and what it serves there."""

    def __init__(self, python: Path, folder: Path, package: Package) -> None:
        self._python, self._folder, self._package = str(python), folder, package
        onnx.save(mlp.model(), folder / "mlp.onnx")

    def agent(self, name: str = "agent", **settings: object) -> AbstractContextManager[Server]:
        """A running agent; one that is started again by the same name finds its data as it left them."""
        return agent(self._folder / name, self._package, python=self._python, **settings)

    def bare(self) -> AbstractContextManager[Running]:
        """A bare Python process with the same network."""
        return running([self._python, "-c", BARE, str(self._folder / "mlp.onnx")], cwd=self._folder)


def main() -> int:
    """Exit status: 0 when every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: a look, not a measurement")
    quick = parser.parse_args().quick
    python = agent_environment()
    sizes = installed(python)
    show_size(sizes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package = mlp.package(folder / "package")
        device = Device(python, folder, package)
        of_bare = starts(device, rounds=3 if quick else 11)
        loaded, share = memory_and_idle(device, load_s=2.0 if quick else 10.0, idle_s=5.0 if quick else 30.0)
        grpc_door(folder, package, sum(sizes.values()))
    held = True
    for name, found, bound in (
        ("start to first answer, as a multiple of the bare process", of_bare, MOST_OF_BARE_START),
        ("PSS under load, MB", loaded, MOST_PSS_MB),
        ("idle, share of a core", share, MOST_IDLE_SHARE),
    ):
        held = held and found <= bound
        print(f"{name}: {found:.3g} (bound {bound:g}){'' if found <= bound else ': does not hold'}")
    return 0 if held else 1


def installed(python: Path) -> dict[str, float]:
    """MB on disk of each part of an environment; ``pip`` and ``setuptools``, which came with it, are left out."""
    return {
        part.name: sum(file.lstat().st_blocks * 512 for file in (part, *part.rglob("*"))) / MB
        for part in site_packages(python).iterdir()
        if not part.name.startswith(("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-"))
    }


def show_size(sizes: dict[str, float]) -> None:
    """What is installed, with the largest parts."""
    print(f"installed, edgeloop[agent]: {sum(sizes.values()):.0f} MB on disk")
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST]:
        print(f"  {name:24} {sizes[name]:6.1f} MB")


def starts(device: Device, rounds: int) -> float:
    """Seconds from the start of a process to its first answer, in turns; returns the median of the rounds' ratios."""
    taken: dict[str, list[float]] = {"edge-agent": [], "bare process": []}
    used: dict[str, list[float]] = {"edge-agent": [], "bare process": []}
    for _ in range(rounds + 1):
        began = time.perf_counter()
        with device.bare() as bare:
            bare.line()
            taken["bare process"].append(time.perf_counter() - began)
            used["bare process"].append(cpu_seconds(bare.pid))
        began = time.perf_counter()
        with device.agent() as server:
            Clients(server.port, 1, REQUEST).close()  # it asks once, and reads the answer
            taken["edge-agent"].append(time.perf_counter() - began)
            used["edge-agent"].append(cpu_seconds(server.pid))
    for name, times in taken.items():
        del times[0], used[name][0]  # the first one filled the caches of the disk
        took, worked = statistics.median(times) * 1e3, statistics.median(used[name]) * 1e3
        print(f"start to first answer, {name:12} {took:5.0f} ms, {worked:.0f} ms of a processor; median of {rounds}")
    return statistics.median(ours / bare for ours, bare in zip(*taken.values(), strict=True))


def memory_and_idle(device: Device, load_s: float, idle_s: float) -> tuple[float, float]:
    """Memory before, under and after load, and processor time without any; returns MB under load, and the share."""
    with device.bare() as bare:
        bare.line()
        print(f"PSS, bare process      {pss(bare.pid) / MB:6.1f} MB")
    with device.agent() as server:
        clients = Clients(server.port, CONNECTIONS, REQUEST)
        time.sleep(SETTLE_S)
        print(f"PSS, agent, idle       {pss(server.pid) / MB:6.1f} MB, one answer given")
        seen, end, answers = [], time.perf_counter() + load_s, 0.0
        while time.perf_counter() < end:
            answers += clients.run(1.0).per_second
            seen.append(pss(server.pid) / MB)
        resident = psutil.Process(server.pid).memory_info().rss / MB
        print(f"PSS, agent, loaded     {max(seen):6.1f} MB after {answers:,.0f} answers, RSS {resident:.1f} MB")
        clients.close()
        time.sleep(SETTLE_S)
        used, began = cpu_seconds(server.pid), time.perf_counter()
        time.sleep(idle_s)
        share = (cpu_seconds(server.pid) - used) / (time.perf_counter() - began)
        print(f"PSS, agent, afterwards {pss(server.pid) / MB:6.1f} MB; idle for {idle_s:.0f} s: {share:.2%} of a core")
    return max(seen), share


def grpc_door(folder: Path, package: Package, without_mb: float) -> None:
    """What the second door costs where it is installed, and once it is switched on."""
    python = agent_environment("agent,grpc")
    device, found = Device(python, folder, package), []
    for settings in ({}, {"grpc_port": free_port()}):
        with device.agent("two-doors", **settings) as server:
            Clients(server.port, 1, REQUEST).close()
            time.sleep(SETTLE_S)
            found.append(pss(server.pid) / MB)
    added = sum(installed(python).values()) - without_mb
    print(f"gRPC door adds         {found[1] - found[0]:6.1f} MB of PSS, idle; {added:.0f} MB on disk")


if __name__ == "__main__":
    sys.exit(main())
