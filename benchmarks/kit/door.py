"""A real HTTP door over the MLP package, in a process of its own: PACKAGE DATA PORT OBSERVE(0|1)."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_agent.observing.assembly import Observing
from edge_agent.ports import LoadedRelease
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.http import Door
from edge_agent.serving.routes import Routes, error_body
from edgeloop.package import Package
from edgeloop.runtime import ModelSession


class NoOperations:
    """The benchmark asks for predictions only."""

    def status(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def flush(self) -> None:
        """Nothing."""

    def metrics(self) -> tuple[bytes, str]:
        """Nothing."""
        return b"", "text/plain"


async def serve(port: int, door: Door) -> None:
    """Serve until SIGTERM."""
    server = await door.open("127.0.0.1", port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


def main() -> None:
    """Serve with the agent's own settings: windows of a minute, checkpoints every two seconds."""
    folder, data, port, observe = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"
    package = Package.open(folder)
    observing = Observing(data / "agent.db", window_s=60.0) if observe else None
    recorder = observing.recorder if observing is not None else None
    if observing is not None:
        observing.start()
    plane = DataPlane(recorder, id_prefix="bench")
    session = ModelSession.load(package, "cpu-fp32", threads=1)
    plane.switch(LoadedRelease(package.digest, package, session, package.profile()))
    asyncio.run(serve(port, Door(Routes(plane, recorder, NoOperations()), error_body, 1 << 20)))
    if observing is not None:
        observing.stop()


if __name__ == "__main__":
    main()
