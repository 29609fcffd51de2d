"""A device's update machine in a process of its own, which can be made to die.

It kills itself after the n-th write to its store, and whenever it serves a certain committed release (``poison``), as a
model does that corrupts memory.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from edge_agent.serving.calls import Call
from edge_agent.serving.dataplane import DataPlane
from edge_agent.updates import UpdateMachine, UpdateSettings
from edge_agent.updates.fetch import FetchLimits
from edge_agent.updates.probation import ProbationRules
from edge_agent.updates.store import UpdateStore
from edge_agent.updates.testing import TestingRules
from edgeloop.protocol import ChannelDocument


def settings(data: Path) -> UpdateSettings:
    return UpdateSettings(
        data,
        "device",
        "http://127.0.0.1:9",
        FetchLimits(1 << 30, 0),
        TestingRules(time_budget_s=0.02),
        ProbationRules(0.05, 0, 5.0),
    )


def main() -> int:
    data, document = Path(sys.argv[1]), ChannelDocument.from_bytes(Path(sys.argv[2]).read_bytes())
    kill_at, poison = int(sys.argv[3]), sys.argv[4]
    store = UpdateStore(data / "updates.db")
    plane = DataPlane(None, id_prefix="t")
    machine = UpdateMachine(settings(data), plane, store=store)
    written = 0
    really = store._write

    def write_and_perhaps_die(*arguments: object, **named: object) -> None:
        nonlocal written
        really(*arguments, **named)  # type: ignore[arg-type]  # passed on as they come
        written += 1
        if written == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    store._write = write_and_perhaps_die  # type: ignore[method-assign]  # the test's way to be there at every store
    machine.start()
    loaded = plane.loaded
    print(f"serving at start: {loaded.digest if loaded else None}", flush=True)
    if loaded is not None:
        plane.infer(Call("digits", None, "", {"x": np.zeros((1, 64), np.float32)}))
        if loaded.digest == poison:
            os.kill(os.getpid(), signal.SIGSEGV)
    machine.follow(document)
    wanted = document.release_for("device")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if wanted is not None and machine.committed() == wanted.digest:
            print("committed", flush=True)
            if wanted.digest == poison:
                os.kill(os.getpid(), signal.SIGSEGV)
            break
        if machine.status().state == "rolled_back" and machine.status().release in machine.refused():
            print("refused", flush=True)
            break
        time.sleep(0.02)
    machine.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
