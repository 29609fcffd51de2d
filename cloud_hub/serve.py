"""Serve a hub over HTTP until it is told to stop."""

from __future__ import annotations

import gc
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from cloud_hub import exit_codes
from cloud_hub.access.first_token import announce_first_token
from cloud_hub.api.app import create_api
from cloud_hub.app import Hub
from cloud_hub.errors import StartError
from cloud_hub.settings import Settings
from cloud_hub.tls import TlsProtocol

log = logging.getLogger(__name__)

#: How long a connection may rest, seconds: as long as at nginx.
KEEP_ALIVE_S = 75


def serve(settings: Settings, announce: Callable[[str], None] = print) -> None:
    """Run a hub in this process until SIGTERM or SIGINT.

    Args:
        settings: what it is started with.
        announce: gets a line for each address that is served, when it is.

    Raises:
        StartError: it cannot start.
    """
    door = bind(settings.listen_host, settings.listen_port)
    with door:
        port = int(door.getsockname()[1])
        hub = Hub(settings, http_port=port)
        try:
            hub.start()
            gc.collect()
            gc.freeze()  # what is there now stays: the collector need not look at it again
            server = HttpServer(hub, started=lambda: _started(hub, announce))
            for number in (signal.SIGTERM, signal.SIGINT):
                # uvicorn has handlers of its own while it serves, and then gives the signal to these.
                signal.signal(number, server.ask_to_stop)
            server.run(sockets=[door])
        finally:
            log.info("stopping")
            hub.access.local.remove()
            hub.stop()


class HttpServer(uvicorn.Server):
    """uvicorn, without its command line."""

    def __init__(self, hub: Hub, *, started: Callable[[], None] = lambda: None) -> None:
        identities = hub.identities
        secured: dict[str, Any] = {}
        if identities is not None:
            context = identities.own.server_context
            secured = {"http": TlsProtocol, "ssl_context_factory": lambda _config, _default: context}
        super().__init__(
            uvicorn.Config(
                create_api(hub),
                **secured,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                # uvicorn's five seconds end connections just as programs that poll send on them.
                timeout_keep_alive=KEEP_ALIVE_S,
                # A device that downloads slowly must not keep the hub from stopping: it goes on by Range.
                timeout_graceful_shutdown=max(1, int(hub.settings.stop_timeout_s / 2)),
            )
        )
        self._when_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door."""
        await super().startup(sockets)
        self._when_started()

    def ask_to_stop(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Finish the requests in flight and return from ``run``."""
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket, which does not listen yet: callers are refused until the hub can answer.

    Raises:
        StartError: the port is taken, or the address is not this machine's.
    """
    # asyncio turns Nagle off only where a socket says that it is TCP; else answers wait 40 ms for an acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as error:
        door.close()
        raise StartError(
            f"HTTP cannot be served on {host}:{port}: {error.strerror or error}",
            "set listen_port to a free port (0 chooses one), and listen_host to an address of this machine",
            exit_codes.PORT_TAKEN,
        ) from error
    return door


def _started(hub: Hub, announce: Callable[[str], None]) -> None:
    hub.access.local.write(hub.addresses.local_url)
    _announce(hub, announce)
    announce_first_token(hub.access, hub.settings.data, announce)


def _announce(hub: Hub, announce: Callable[[str], None]) -> None:
    settings = hub.settings
    host, broker_port = hub.addresses.broker
    kind = "runs elsewhere" if hub.broker is None else f"{hub.broker.choice.kind}, embedded"
    mqtt = "mqtt" if hub.identities is None else "mqtts"
    announce(f"cloud-hub serves {hub.addresses.listen_url} (documentation at /docs)")
    announce(
        f"cloud-hub uses  {mqtt}://{host}:{broker_port} ({kind}), fleet {settings.fleet!r}, data in {settings.data}"
    )
