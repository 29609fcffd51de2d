"""The HTTP door: it listens, over TCP or at a Unix-domain socket, and closes in order."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import field

from edge_agent.serving.http_connection import Connection, Shared
from edgeloop.records import dataclass

#: Clients that have connected and were not taken in yet.
BACKLOG = 512


@dataclass
class Door(Shared):
    """Takes clients in until it is drained."""

    servers: list[asyncio.Server] = field(default_factory=list)

    async def open(self, host: str, port: int) -> asyncio.Server:
        """Listen; raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG))
        return self.servers[-1]

    async def open_at(self, listener: socket.socket) -> asyncio.Server:
        """Listen at a Unix-domain socket that is bound already."""
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_unix_server(lambda: Connection(self), sock=listener, backlog=BACKLOG))
        return self.servers[-1]

    async def drain(self, timeout_s: float) -> None:
        """Take no more clients, let requests that are under way end, then close every connection."""
        self.closing = True
        for server in self.servers:
            server.close()
        end = asyncio.get_running_loop().time() + timeout_s
        while any(c.busy for c in self.connections) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.close()
