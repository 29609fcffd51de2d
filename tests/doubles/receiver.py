"""A real HTTP server that is told of alarms: it answers what it is told to answer, and remembers what it got."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Received:
    headers: Mapping[str, str]
    body: bytes

    def signed_with(self, secret: str) -> bool:
        """Checked as a receiver of Standard Webhooks does, with none of the hub's code."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return hmac.compare_digest(expected, self.headers["webhook-signature"])


class Receiver:
    """``answers`` are the statuses of the next requests; after them each gets ``then``."""

    def __init__(self, *answers: int, then: int = 204) -> None:
        self.answers, self.then = list(answers), then
        self.received: list[Received] = []
        receiver, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    status = receiver.answers.pop(0) if receiver.answers else receiver.then
                    receiver.received.append(Received(headers, body))
                self.send_response(status)
                self.send_header("location", f"{receiver.url}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/alarms"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
