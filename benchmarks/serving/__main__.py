"""The serving benchmark: `make bench`, or ``python -m benchmarks.serving [--quick] [--peers NAMES] [--models NAMES]``.

The agent (installed as a device installs it) is compared with onnxruntime called in process, the limit; with an
asyncio loop of thirty lines that checks nothing; and with Python servers from PyPI, each in an environment of its own
under ``~/.cache/edgeloop-bench`` (`EDGELOOP_BENCH_CACHE`). Same network, one worker, one thread a run, same load
generator; all of them run all the time and are asked in turns. A peer that cannot be installed or started is listed
with its error. What is printed are medians over the rounds; ratios are formed round by round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.kit.environments import InstallError, agent_environment
from benchmarks.kit.processes import StartError, cpu_seconds, pss
from benchmarks.serving import networks, report, targets
from benchmarks.serving.comparison import Comparison, take_turns
from benchmarks.serving.peer import Peer, known
from tests.integration.brokers import free_port

CONNECTIONS = (1, 8, 32)
#: Seconds of a turn, which lasts until every answer has come; and of one under open load, long enough for a quantile.
TURN_S = {"mlp": 0.5, "mobilenet": 1.5}
OPEN_TURN_S = {"mlp": 3.0, "mobilenet": 10.0}
ROUNDS, OPEN_ROUNDS = 5, 5
#: Seconds that everybody gets to come to rest after its start, and for which it is then left alone.
SETTLE_S, IDLE_S = 5.0, 3.0


def main() -> int:
    """Exit status: 0 when every bound holds."""
    peers = known()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds and one peer: a look, not a measurement")
    parser.add_argument("--peers", help=f"separated by commas, of {', '.join(peers)}; none: without any")
    parser.add_argument("--models", default=",".join(networks.NAMES), help="separated by commas")
    arguments = parser.parse_args()
    names = arguments.peers or ("kserve" if arguments.quick else ",".join(peers))
    chosen = [peers[name] for name in names.split(",") if name != "none"]
    installed, failures = install(chosen)
    python = agent_environment()
    print(report.machine())
    for found in chosen:
        print(f"  {found.name}: {found.settings}", flush=True)
    bounds = []
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            network, failed = networks.make(name, Path(folder)), dict(failures)
            with running(network, python, installed, failed, Path(folder)) as everybody:
                bounds += measure(network, everybody, failed, quick=arguments.quick)
    print()
    for bound in bounds:
        print(bound)
    return 0 if all(bound.holds for bound in bounds) else 1


def install(peers: list[Peer]) -> tuple[dict[Peer, Path], dict[str, str]]:
    """Python of each peer that can be installed, and why the others cannot."""
    installed, failures = {}, {}
    for found in peers:
        try:
            installed[found] = found.install()
        except InstallError as error:
            failures[found.name] = f"not installed: {error}"
    return installed, failures


@contextmanager
def running(
    network: networks.Network, python: Path, installed: dict[Peer, Path], failures: dict[str, str], folder: Path
) -> Iterator[list[targets.Target]]:
    """Every target that serves the network: the limit, the bare loop, the agent, and the peers that start."""
    with ExitStack() as stack:
        begun, peers = [], []
        for found, at in installed.items():
            port = free_port()
            begun.append((found, stack.enter_context(found.start(at, network.onnx, port, folder)), port))
        for found, process, port in begun:
            try:
                peers.append(targets.peer(found, process, port, network))
            except StartError as error:
                failures[found.name] = f"not started: {error}"
        # The agent last: what it measures at its start, whether batches help, should not be the others' start.
        limit = stack.enter_context(targets.in_process(network))
        bare = stack.enter_context(targets.bare_loop(network))
        ours = stack.enter_context(targets.our_agent(network, python, folder))
        everybody = [limit, bare, *ours, *peers]
        yield everybody


def measure(
    network: networks.Network, everybody: list[targets.Target], failures: dict[str, str], *, quick: bool
) -> list[report.Bound]:
    """Everything about one network, printed; returns its bounds."""
    rounds, turn_s = (2 if quick else ROUNDS), TURN_S[network.name]
    idle = idle_shares(everybody)
    at: dict[int, Comparison] = {}
    for n in CONNECTIONS:
        at[n] = take_turns(everybody, partial(targets.closed, connections=n, seconds=turn_s), rounds, failures)
        report.table(f"{network.title}, {report.on(n)}", at[n])
    report.memory(
        f"{network.title}, memory after load",
        {
            target.name: report.Footprint(pss(target.pid), idle[target.name])
            for target in everybody
            if target.name not in failures and target.name != targets.SHARED
        },
    )
    per_second = max(comparison.median(targets.AGENT, "per_second") for comparison in at.values()) / 2
    other = targets.BARE if network.name == "mlp" else targets.LIMIT
    pair = [target for target in everybody if target.name in (other, targets.AGENT)]
    load = partial(targets.opened, per_second=per_second, seconds=OPEN_TURN_S[network.name] / (3 if quick else 1))
    tail = take_turns(pair, load, 2 if quick else OPEN_ROUNDS, failures)
    report.table(f"{network.title}, open load of {per_second:,.0f} requests/s: half of the agent's most", tail)
    for name, why in failures.items():
        print(f"  {name}: {why}")
    return report.mlp_bounds(at, tail) if network.name == "mlp" else report.mobilenet_bounds(at, tail)


def idle_shares(everybody: list[targets.Target]) -> dict[str, float]:
    """Share of a core that each target uses while nobody asks it, by its name."""
    time.sleep(SETTLE_S)
    before = {target.name: cpu_seconds(target.pid) for target in everybody}
    time.sleep(IDLE_S)
    return {target.name: (cpu_seconds(target.pid) - before[target.name]) / IDLE_S for target in everybody}


if __name__ == "__main__":
    sys.exit(main())
