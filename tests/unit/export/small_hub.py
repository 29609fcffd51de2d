"""A small hub that keeps what the contract says, over a real socket; metadata it takes by the real rules."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from edgeloop.trust import checking, names
from edgeloop.trust.errors import OutdatedError, TrustError
from edgeloop.trust.state import TrustState
from tests.doubles.secure_fleet import SecureFleet


class SmallHub(ThreadingHTTPServer):
    """Remembers blobs and requests; can fail a number of times first.

    Attributes:
        fleet: whose metadata it has, taken and served; None for a hub that signs nothing.
        before: called with each request before it is answered: what somebody else does at that moment.
        drip: whether it answers every request with a body that never ends.
        lose: requests that are done and whose answer gets lost, by their beginning, each once.
    """

    def __init__(self, fleet: SecureFleet | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fleet = fleet
        self.blobs: dict[str, bytes] = {}
        self.released: list[str] = []
        self.requests: list[str] = []
        self.failures: list[int] = []
        self.refuse: dict[str, tuple[int, dict[str, str]]] = {}
        self.named: tuple[str, ...] = ()
        self.before: Callable[[str], None] = lambda request: None
        self.lose: list[str] = []
        self.drip = False

    @contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def handle_error(self, *args: Any) -> None:
        """A client that goes away in the middle of a body is what one test is about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def state(self) -> dict[str, Any]:
        """The answer of GET /api/v1/trust."""
        if self.fleet is None:
            return {"signed": False}
        online = {role: key.public_key for role, key in self.fleet.online.items()}
        versions = {role: metadata.signed.version for role, metadata in self.fleet.newest.items()}
        return {"signed": True, **TrustState("fleet", online, versions, self.named).to_document()}

    def take(self, role: str, data: bytes) -> tuple[int, dict[str, Any]]:
        """What PUT /api/v1/trust/metadata/<role> answers."""
        assert self.fleet is not None
        newest = self.fleet.newest
        try:
            if role == names.ROOT:
                metadata: Any = checking.read_root(data)
                taken = checking.next_root(newest[role], data) if role in newest else checking.pinned_root(data)
            else:
                metadata = taken = checking.read_targets(data, role)
                delegator = newest[names.ROOT if role == names.TARGETS else names.TARGETS].signed
                checking.check_next(role, delegator, newest.get(role), taken)
        except OutdatedError as error:
            return 409, {"error": str(error)}
        except (TrustError, KeyError) as error:
            return 400, {"error": str(error)}
        newest[role] = taken
        self.fleet.files[names.file_name(role, metadata.signed.version)] = data
        return 200, {"role": role, "version": metadata.signed.version}


class _Handler(BaseHTTPRequestHandler):
    server: SmallHub

    def do_GET(self) -> None:
        if self._ended(f"GET {self.path}"):
            return
        if self.path == "/api/v1/trust":
            self._answer(200, self.server.state())
        elif self.server.fleet and (data := self.server.fleet.files.get(self.path.removeprefix("/tuf/"))):
            self._send(200, data)
        else:
            self._answer(404, {"error": "nothing here"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.removeprefix("/api/v1")
        if self._ended(f"POST {path}"):
            return
        if path == "/releases/missing":
            shas = [file["sha256"] for file in json.loads(body)["files"]]
            missing = [sha for sha in dict.fromkeys(shas) if sha not in self.server.blobs]
            self._answer(200, {"digest": _digest(body), "missing": missing})
        elif path == "/releases":
            self.server.released.append(_digest(body))
            self._answer(201, {"digest": _digest(body), "name": "digits", "version": "1.0.0"})
        else:
            self._answer(200, {"rollout": None, "serial": 3, "got": json.loads(body)})

    def do_PUT(self) -> None:
        # The body may come in chunks; httpx sends the length that it is told.
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.removeprefix("/api/v1")
        name = path.rpartition("/")[2]
        if path.startswith("/trust/metadata/"):
            if not self._ended(f"PUT {path}"):
                self._answer(*self.server.take(name, body))
            return
        if self._ended("PUT"):
            return
        assert hashlib.sha256(body).hexdigest() == name
        self.server.blobs[name] = body
        self._answer(201, {})

    def _ended(self, request: str) -> bool:
        """Whether the request has been answered by what a test asked for."""
        self.server.requests.append(request)
        self.server.before(request)
        if self.server.failures:
            self._answer(self.server.failures.pop(0), {"error": "busy"})
            return True
        for start, (status, body) in self.server.refuse.items():
            if request.startswith(start):
                self._answer(status, body)
                return True
        self._request = request
        return False

    def _answer(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, content: bytes) -> None:
        for start in self.server.lose:
            if getattr(self, "_request", "").startswith(start):
                self.server.lose.remove(start)
                self.close_connection = True
                return
        self.send_response(status)
        if self.server.drip:
            self.end_headers()
            with contextlib.suppress(OSError):  # until the client has had enough
                while True:
                    self.wfile.write(b" ")
                    time.sleep(0.01)
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


def _digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()
