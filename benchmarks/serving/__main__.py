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
from contextlib import ExitStack
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
ROUNDS, OPEN_ROUNDS, IDLE_S = 5, 5, 3.0
SEED = 20


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
            network = networks.make(name, Path(folder))
            bounds += measure(network, python, installed, dict(failures), Path(folder), quick=arguments.quick)
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


def measure(
    network: networks.Network,
    python: Path,
    installed: dict[Peer, Path],
    failures: dict[str, str],
    folder: Path,
    *,
    quick: bool,
) -> list[report.Bound]:
    """Everything about one network, printed; returns its bounds."""
    rounds, turn_s = (2 if quick else ROUNDS), TURN_S[network.name]
    with ExitStack() as stack:
        started = [
            (found, stack.enter_context(found.start(at, network.onnx, port := free_port(), folder)), port)
            for found, at in installed.items()
        ]
        limit = stack.enter_context(targets.in_process(network))
        bare = stack.enter_context(targets.bare_loop(network))
        ours = stack.enter_context(targets.our_agent(network, python, folder))
        everybody: list[targets.Target] = [limit, bare, *ours]
        for found, process, port in started:
            try:
                everybody.append(targets.peer(found, process, port, network))
            except StartError as error:
                failures[found.name] = f"not started: {error}"
        idle = idle_shares(everybody)
        at: dict[int, Comparison] = {}
        for n in CONNECTIONS:
            at[n] = take_turns(everybody, lambda target, n=n: target.closed(n, turn_s), rounds, failures)  # type: ignore[misc]
            report.table(f"{network.title}, {report.on(n)}", at[n])
        footprints = {
            target.name: report.Footprint(pss(target.pid), idle[target.name])
            for target in everybody
            if target.name not in failures and target.name != targets.SHARED
        }
        report.memory(f"{network.title}, memory after load", footprints)
        per_second = max(c.median(targets.AGENT, "per_second") for c in at.values()) / 2
        pair = [bare if network.name == "mlp" else limit, ours[0]]
        seconds = OPEN_TURN_S[network.name] / (3 if quick else 1)
        tail = take_turns(
            pair, lambda target: target.open(per_second, seconds, SEED), 2 if quick else OPEN_ROUNDS, failures
        )
        report.table(f"{network.title}, open load of {per_second:,.0f} requests/s: half of the agent's most", tail)
    for name, why in failures.items():
        print(f"  {name}: {why}")
    return report.mlp_bounds(at, tail) if network.name == "mlp" else report.mobilenet_bounds(at, tail)


def idle_shares(everybody: list[targets.Target]) -> dict[str, float]:
    """Share of a core that each target uses while nobody asks it, by its name."""
    before = {target.name: cpu_seconds(target.pid) for target in everybody}
    time.sleep(IDLE_S)
    return {target.name: (cpu_seconds(target.pid) - before[target.name]) / IDLE_S for target in everybody}


if __name__ == "__main__":
    sys.exit(main())
