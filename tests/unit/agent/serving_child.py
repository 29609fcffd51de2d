"""An agent's process that answers one inference, and then says which modules it carries.

    python -m tests.unit.agent.serving_child CONFIG PORT < REQUEST

It is `edge-agent run` itself; a thread asks the agent over HTTP, waits for a checkpoint, prints as JSON which modules
the first request has brought and which there are in the end, and stops the process. The thread imports nothing that the
agent does not have anyway. The line to the hub is made, and the device's health looked at, when the first answer is
there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

from edge_agent.app import Agent
from edge_agent.cli import command
from edge_agent.observing.health import DeviceHealth, HealthSample

#: Long enough for a checkpoint and a report at the settings of the test.
SETTLE_S = 0.5

ANSWERED = threading.Event()


def ask(port: int, request: bytes) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.05)
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                before = set(sys.modules)
                client.sendall(request)
                answered = client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        except OSError:
            continue
        if answered:
            brought = sorted(set(sys.modules) - before)
            ANSWERED.set()
            time.sleep(SETTLE_S)
            print(json.dumps({"brought": brought, "all": sorted(sys.modules)}), flush=True)
            break
    os.kill(os.getpid(), signal.SIGTERM)


def connect_when_answered(agent: Agent, connect: Callable[[Agent], None] = Agent._connect) -> None:
    ANSWERED.wait(60)
    connect(agent)


def sample_when_answered(
    health: DeviceHealth, sample: Callable[[DeviceHealth], HealthSample] = DeviceHealth.sample
) -> HealthSample:
    return sample(health) if ANSWERED.is_set() else HealthSample(None, None, None)


if __name__ == "__main__":
    # So that what they import is not the request's.
    Agent._connect = connect_when_answered  # type: ignore[method-assign]
    DeviceHealth.sample = sample_when_answered  # type: ignore[method-assign]
    threading.Thread(target=ask, args=(int(sys.argv[2]), sys.stdin.buffer.read()), daemon=True).start()
    sys.exit(command(["run", "--config", sys.argv[1]]))
