"""Where a hub and its broker are reached: by devices, and by commands on its machine."""

from __future__ import annotations

import socket

from cloud_hub.broker import EmbeddedBroker
from cloud_hub.settings import Settings, is_wildcard


class Addresses:
    """The addresses of one hub.

    Args:
        settings: the hub's.
        http_port: the port that the HTTP interface really has.
        broker: that runs as the hub's child; None: one that runs elsewhere.
    """

    def __init__(self, settings: Settings, http_port: int, broker: EmbeddedBroker | None) -> None:
        self._settings, self._http_port, self._broker = settings, http_port, broker

    @property
    def public_url(self) -> str:
        """Base URL that devices fetch files from."""
        if self._settings.public_url:
            return self._settings.public_url
        host = self._settings.listen_host
        # Every address: the name is the best guess that devices can resolve.
        return self._url(socket.gethostname() if is_wildcard(host) else host)

    @property
    def local_url(self) -> str:
        """Base URL that a command on this machine reaches the hub at."""
        host = self._settings.listen_host
        return self._url("127.0.0.1" if is_wildcard(host) else host)

    @property
    def listen_url(self) -> str:
        """Base URL of the address that it listens on."""
        return self._url(self._settings.listen_host)

    @property
    def broker(self) -> tuple[str, int]:
        """Host and port of the broker, embedded or not."""
        if self._broker is not None:
            return self._broker.host, self._broker.port
        return self._settings.broker_host, self._settings.broker_port

    @property
    def broker_tls(self) -> bool:
        """Whether the broker is spoken to by mutual TLS."""
        return not self._settings.insecure and (self._broker is None or self._broker.mutual_tls)

    def _url(self, host: str) -> str:
        scheme = "http" if self._settings.insecure else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._http_port}"
