"""GET over HTTP, as the agent needs it: streamed, resumable by the caller, connections kept, redirects not followed.

It is the standard library's client with one kind of error. The libraries that do more were measured at 9 MB of a device
that has fetched once (``docs/decisions/agent-footprint.md``). HTTPS trusts what the device's system trusts.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import TracebackType
from urllib.parse import urlsplit

CHUNK_BYTES = 64 << 10


class WebError(Exception):
    """The server cannot be reached, or what it sends is no HTTP; the message says which."""


class Answer:
    """An answer whose body has not been read.

    Attributes:
        status: HTTP status.
        headers: by name in lower case.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.getheaders()}
        self._left = response.length  # None: until the end, or in chunks

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces, each as soon as it is here: what has come before a connection ends is not lost.

        Raises:
            WebError: the connection ended before the body did.
        """
        while self._left is None or self._left > 0:
            with _web_errors():
                chunk = self._response.read1(CHUNK_BYTES if self._left is None else min(CHUNK_BYTES, self._left))
            if not chunk:
                if self._left is not None:
                    raise WebError(f"the connection ended {self._left:,} bytes before the end")
                break
            if self._left is not None:
                self._left -= len(chunk)
            yield chunk
        self._left = 0

    def read(self, most: int) -> bytes:
        """The whole body.

        Raises:
            WebError: it has more than ``most`` bytes, or the connection ended before it did.
        """
        found = bytearray()
        for chunk in self.chunks():
            found += chunk
            if len(found) > most:
                raise WebError(f"the answer has more than {most:,} bytes")
        return bytes(found)

    @property
    def whole(self) -> bool:
        """Whether the body has been read to its end."""
        return self._left == 0


class Client:
    """Asks servers; one connection to each is kept while it is used as a context manager.

    Args:
        timeout_s: for connecting, and for each wait for bytes.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._connections: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def __enter__(self) -> Client:
        """Use the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """Ask for a resource; any status is an answer.

        Raises:
            WebError: the URL is none, the server cannot be reached, or what it sends is no HTTP.
        """
        with _web_errors():
            connection, path = self._connection(url)
            answer = Answer(self._asked(connection, path, dict(headers or {})))
        try:
            yield answer
        finally:
            # A connection on which bytes of this answer are still to come cannot carry another.
            if answer.whole:
                answer._response.close()
            else:
                connection.close()

    def _connection(self, url: str) -> tuple[http.client.HTTPConnection, str]:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url[:200]!r} is no http or https URL")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        key = (parts.scheme, parts.netloc)
        if key not in self._connections:
            self._connections[key] = (
                http.client.HTTPSConnection(parts.hostname, parts.port, timeout=self._timeout_s, context=self._tls)
                if parts.scheme == "https"
                else http.client.HTTPConnection(parts.hostname, parts.port, timeout=self._timeout_s)
            )
        return self._connections[key], path

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _asked(
        self, connection: http.client.HTTPConnection, path: str, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        kept = connection.sock is not None
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            connection.close()
            if not kept:
                raise
        # The server had closed the kept connection meanwhile; on a fresh one the question is asked once more.
        connection.request("GET", path, headers=headers)
        return connection.getresponse()


@contextlib.contextmanager
def _web_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WebError(str(error) or type(error).__name__) from error
