"""Bytes that go to the hub over HTTP, as this device: what is too large for MQTT."""

from __future__ import annotations

import http.client
import ssl
from urllib.parse import urlsplit

from edgeloop.records import dataclass

CBOR = "application/cbor"
MAX_ANSWER_BYTES = 1 << 20


class NoAnswer(Exception):
    """The hub cannot be reached, or has broken off; the message says why."""


@dataclass(frozen=True)
class Uploaded:
    """What the hub said: its status, and its body."""

    status: int
    body: bytes

    @property
    def taken(self) -> bool:
        """Whether the hub has it."""
        return 200 <= self.status < 300


class Uploads:
    """A connection that stays open from one upload to the next. Not thread-safe: whoever sends has its own.

    Args:
        hub: base URL, http:// or https://.
        context: for https, the device's certificate in it.
        timeout_s: for connecting, and for each wait.
    """

    def __init__(self, hub: str, context: ssl.SSLContext | None, *, timeout_s: float = 15.0) -> None:
        self._hub, self._url, self._context, self._timeout_s = hub, urlsplit(hub), context, timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes, *, timeout_s: float | None = None) -> Uploaded:
        """Send bytes; no redirection is followed.

        Args:
            path: below the base URL, such as ``/api/v1/samples``.
            body: CBOR.
            timeout_s: another one than is usual, for this.

        Raises:
            NoAnswer: there is none.
        """
        rested = self._connection is not None
        try:
            return self._post(path, body, timeout_s)
        except NoAnswer as error:
            # A connection that has rested may have been closed there. A hub that is slow has the bytes already.
            if not rested or isinstance(error.__cause__, TimeoutError):
                raise
            return self._post(path, body, timeout_s)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, path: str, body: bytes, timeout_s: float | None) -> Uploaded:
        try:
            if self._connection is None:
                self._connection = self._open()
            connection = self._connection
            connection.timeout = self._timeout_s if timeout_s is None else timeout_s
            if connection.sock is not None:
                connection.sock.settimeout(connection.timeout)
            connection.request("POST", self._url.path.rstrip("/") + path, body, {"Content-Type": CBOR})
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise NoAnswer(f"{self._hub} does not answer: {error or type(error).__name__}") from error
        if answer.will_close or len(data) == MAX_ANSWER_BYTES:
            self.close()
        return Uploaded(answer.status, data)

    def _open(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
