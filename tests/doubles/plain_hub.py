"""The two addresses of a hub that an update needs, over real HTTP with Range: for tests of devices."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgeloop.package import Package
from edgeloop.protocol import ChannelDocument, ReleaseRef, RolloutRef


class PlainHub:
    """Serves packages; ``requests`` notes (path, Range header). ``cut_after`` ends an answer after so many bytes;
    while there is ``busy_s``, every answer is 503 and asks to wait for so long; ``headers`` go with every answer."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after: int | None = None
        self.busy_s: int | None = None
        self.headers: dict[str, str] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests.append((self.path, self.headers.get("Range")))
                if hub.busy_s is not None:
                    self.send_response(503)
                    self.send_header("Retry-After", str(hub.busy_s))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = hub.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                asked = self.headers.get("Range")
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(len(body) - start))
                for name, value in hub.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[start:] if hub.cut_after is None else body[start : start + hub.cut_after])
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def add(self, package: Package) -> None:
        self.files[f"/api/v1/releases/{package.digest}/index"] = package.index.to_bytes()
        for entry in package.index.entries:
            self.files[f"/api/v1/blobs/{entry.sha256}"] = (package.root / entry.path).read_bytes()

    def offer(self, package: Package, *, serial: int = 1, rollout: str | None = None) -> ChannelDocument:
        """A channel document: ``package`` as the current release, or as everybody's candidate in a rollout."""
        self.add(package)
        ref = ReleaseRef(package.digest, package.name, package.version, len(package.index.to_bytes()))
        if rollout is None:
            return ChannelDocument("stable", serial, ref, None, self.url)
        return ChannelDocument("stable", serial, None, RolloutRef(rollout, ref, 1.0), self.url)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
