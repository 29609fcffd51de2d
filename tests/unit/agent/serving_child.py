"""An agent's process that answers one inference, and then says which modules it carries.

    python -m tests.unit.agent.serving_child CONFIG PORT < REQUEST

It is `edge-agent run` itself; a thread asks the agent over HTTP, waits for a checkpoint, prints the modules as JSON and
stops the process. The thread imports nothing that the agent does not have anyway.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time

from edge_agent.cli import command

#: Long enough for a checkpoint and a report at the settings of the test.
SETTLE_S = 0.5


def ask(port: int, request: bytes) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.05)
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(request)
                answered = client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        except OSError:
            continue
        if answered:
            time.sleep(SETTLE_S)
            print(json.dumps(sorted(sys.modules)), flush=True)
            break
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=ask, args=(int(sys.argv[2]), sys.stdin.buffer.read()), daemon=True).start()
    sys.exit(command(["run", "--config", sys.argv[1]]))
