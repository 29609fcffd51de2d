"""A hub that can be made to misbehave at single addresses: endless, dripping, silent, cut, redirected."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgeloop.package import Package

Misdeed = Callable[[BaseHTTPRequestHandler, bytes], None]


class HostileHub:
    """Serves ``files`` by path, with Range; ``misdeeds`` answer in place of a file at their paths.

    ``requests`` notes (path, Range header) of every request. With ``tls`` it is spoken to over HTTPS.
    """

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.misdeeds: dict[str, Misdeed] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.closed = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests.append((self.path, self.headers.get("Range")))
                self.close_connection = True
                body = hub.files.get(self.path)
                try:
                    if (misdeed := hub.misdeeds.get(self.path)) is not None:
                        misdeed(self, body or b"")
                    elif body is None:
                        self.send_error(404)
                    else:
                        hub.send(self, body)
                except OSError:
                    return  # the other side has had enough

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'' if tls is None else 's'}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @staticmethod
    def send(to: BaseHTTPRequestHandler, body: bytes, *, most: int | None = None) -> None:
        """A proper answer, which may end after ``most`` bytes."""
        asked = to.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        to.send_response(206 if asked else 200)
        to.send_header("Content-Length", str(len(body) - start))
        to.end_headers()
        to.wfile.write(body[start:] if most is None else body[start : start + most])

    def endless(self, to: BaseHTTPRequestHandler, _: bytes) -> None:
        """Bytes without an end."""
        to.send_response(200)
        to.end_headers()
        while not self.closed.is_set():
            to.wfile.write(b" " * 65_536)

    def drip(self, to: BaseHTTPRequestHandler, body: bytes) -> None:
        """A byte now and then, so that the line is never silent."""
        to.send_response(200)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        for byte in body:
            if self.closed.is_set():
                return
            to.wfile.write(bytes([byte]))
            to.wfile.flush()
            time.sleep(0.05)

    def silence(self, to: BaseHTTPRequestHandler, _: bytes) -> None:
        """Nothing at all."""
        self.closed.wait(60)

    def cut(self, to: BaseHTTPRequestHandler, body: bytes) -> None:
        """A third of the file at a time."""
        self.send(to, body, most=len(body) // 3 + 1)

    def redirect(self, to: BaseHTTPRequestHandler, _: bytes) -> None:
        """Somewhere else."""
        to.send_response(302)
        to.send_header("Location", f"{self.url}/elsewhere")
        to.end_headers()

    def add(self, package: Package) -> None:
        """Have the files of a release."""
        self.files[f"/api/v1/releases/{package.digest}/index"] = package.index.to_bytes()
        for entry in package.index.entries:
            self.files[f"/api/v1/blobs/{entry.sha256}"] = (package.root / entry.path).read_bytes()

    def mirror(self, metadata: dict[str, bytes]) -> None:
        """Have these files of metadata, and no others."""
        for path in [path for path in self.files if path.startswith("/tuf/")]:
            del self.files[path]
        self.files |= {f"/tuf/{name}": data for name, data in metadata.items()}

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
