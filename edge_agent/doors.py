"""Every door of an agent: HTTP over TCP and at a Unix-domain socket, and gRPC where it is wanted."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

from edge_agent.ports import Recorder
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.http import Door
from edge_agent.serving.repository import Repository
from edge_agent.serving.responses import error_body
from edge_agent.serving.routes import Operations, Routes
from edge_agent.serving.unix_socket import clear, listening, permitting
from edge_agent.settings import Settings

if TYPE_CHECKING:
    from edge_agent.serving.grpc.door import GrpcDoor
    from edge_agent.serving.shared_memory import SharedMemory


class AddressError(Exception):
    """A door cannot be opened; the message says why."""


class Doors:
    """Made before anything serves, opened when something does, and closed together."""

    def __init__(
        self,
        settings: Settings,
        plane: DataPlane,
        recorder: Recorder | None,
        operations: Operations,
        repository: Repository | None,
        memory: SharedMemory | None,
    ) -> None:
        """Make them; arguments as those of `edge_agent.serving.routes.Routes`."""
        self._settings = settings
        routes = Routes(plane, recorder, operations, repository, memory, settings.max_picture_pixels)
        self._http = Door(routes, error_body, settings.max_body_bytes)
        self._grpc: GrpcDoor | None = None
        if settings.grpc_port is not None or settings.grpc_socket is not None:
            # The second door, whose library only an agent pays for that opens it.
            from edge_agent.serving.grpc.door import GrpcDoor
            from edge_agent.serving.grpc.service import Service

            service = Service(plane, repository, memory, routes.extensions)
            self._grpc = GrpcDoor(service, settings.max_body_bytes)

    async def open(self, at_the_end: ExitStack) -> list[str]:
        """Open every door; returns where they are.

        Args:
            at_the_end: gets what is to be cleared away when they are closed.

        Raises:
            AddressError: one cannot be opened.
        """
        host, port, path = self._settings.listen_host, self._settings.listen_port, self._settings.listen_socket
        try:
            server = await self._http.open(host, port)
        except OSError as error:
            raise AddressError(
                f"HTTP cannot be served on {host}:{port}: {error.strerror or error}; set listen_port to a free port"
            ) from error
        addresses = [f"http://{host}:{server.sockets[0].getsockname()[1]}/v2"]
        if path is not None:
            try:
                listener = at_the_end.enter_context(listening(path, int(self._settings.listen_socket_mode, 8)))
                await self._http.open_at(listener)
            except OSError as error:
                raise AddressError(
                    f"HTTP cannot be served at {path} (listen_socket): {error.strerror or error}"
                ) from error
            addresses.append(str(path))
        if self._grpc is not None:
            addresses += self._open_grpc(self._grpc)
        return addresses

    async def close(self, grace_s: float) -> None:
        """Take nothing new; what is under way may end within ``grace_s`` seconds."""
        closing = [] if self._grpc is None else [asyncio.to_thread(self._grpc.close, grace_s)]
        await asyncio.gather(self._http.drain(grace_s), *closing)

    def _open_grpc(self, door: GrpcDoor) -> list[str]:
        settings, addresses = self._settings, []
        if settings.grpc_port is not None:
            host = f"[{settings.listen_host}]" if ":" in settings.listen_host else settings.listen_host
            addresses.append(f"{host}:{settings.grpc_port}")
        if (path := settings.grpc_socket) is not None:
            addresses.append(f"unix:{path}")
        try:
            if path is not None:
                clear(path)
            with permitting(int(settings.listen_socket_mode, 8)):
                port = door.open(*addresses)[0]
        except OSError as error:
            raise AddressError(
                f"gRPC cannot be served: {error.strerror or error}; set grpc_port to a free port, or grpc_socket to a "
                "path that nobody listens at"
            ) from error
        if settings.grpc_port is not None:
            addresses[0] = f"grpc://{host}:{port}"
        return addresses
