"""An agent as a process of its own, on which a package is committed already: no hub and no broker are there."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kit.processes import running
from edgeloop.package import Package
from tests.doubles.installed import install
from tests.integration.brokers import free_port


@dataclass(frozen=True)
class Server:
    """A server that listens: its port on loopback, its process."""

    port: int
    pid: int


def prepare(folder: Path, package: Package, **settings: object) -> tuple[Path, int]:
    """Commit a package in ``folder``, unless it is there; returns the settings of an agent for it, and its port.

    One thread a run, as every other target of a comparison has; the broker that is looked for is not there.
    """
    port = free_port()
    if not folder.exists():
        install(package, folder / "data")
    values = {
        "device": folder.name,
        "data": str(folder / "data"),
        "listen_port": port,
        "broker_port": free_port(),
        "threads": 1,
        "log_level": "error",
        **settings,
    }
    config = folder / "agent.toml"
    # JSON's texts, numbers, lists and truth values are TOML as well.
    config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    return config, port


@contextlib.contextmanager
def agent(folder: Path, package: Package, *, python: str = sys.executable, **settings: object) -> Iterator[Server]:
    """An agent that serves a package.

    Args:
        folder: for its data; made.
        package: what it serves.
        python: of the environment that it runs in.
        settings: in addition to those that a benchmark needs.
    """
    config, port = prepare(folder, package, **settings)
    # In an environment of its own, what is installed there has to be what runs, not this checkout.
    apart = python != sys.executable
    command = [python, "-m", "edge_agent", "run", "--config", str(config)]
    with running(command, env={"PYTHONPATH": ""} if apart else None, cwd=folder if apart else None) as process:
        process.line()
        yield Server(port, process.pid)
