"""A hub in this process, without a broker, behind its real HTTP server on a free port."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import Any

import httpx

from cloud_hub.access.principals import Role
from cloud_hub.app import Hub
from cloud_hub.serve import HttpServer, bind
from cloud_hub.settings import Settings
from edgeloop.package import Package
from tests.doubles.new_records import new_records
from tests.unit.hub.kit import Clock, Published


class ApiHub:
    """The hub, its HTTP client, and what it publishes."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = Clock()
        # A broker that runs elsewhere, and is not there: the hub has to work without it.
        values = {"data": folder, "broker": "none", "broker_port": 9, **settings}
        new_records(folder).close()
        self.hub = Hub(Settings(**values), clock=self.clock)
        self.sent = Published()
        self.hub.announcer.publish = self.sent.publish  # type: ignore[method-assign]
        started = threading.Event()
        self._server = HttpServer(self.hub, started=started.set)
        self._door = bind("127.0.0.1", 0)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._door]}, daemon=True)
        self._thread.start()
        assert started.wait(10)
        self.http = self.client("" if self.hub.access.open else self.token(Role.ADMIN))

    def token(self, role: Role, name: str = "tests", **limits: Any) -> str:
        """A new token of a hub that asks who is there."""
        return self.hub.access.tokens.create(name, role, **limits).text

    def client(self, token: str = "") -> httpx.Client:
        """A client that shows a token, or nothing."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        identities, address = self.hub.identities, f"127.0.0.1:{self._door.getsockname()[1]}"
        if identities is None:
            return httpx.Client(base_url=f"http://{address}", timeout=30.0, headers=headers)
        trust = ssl.create_default_context(cadata=identities.own.trust.decode())
        return httpx.Client(base_url=f"https://{address}", timeout=30.0, headers=headers, verify=trust)

    def close(self) -> None:
        self.http.close()
        self._server.ask_to_stop()
        self._thread.join(10)
        self._door.close()
        self.hub.stop()

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        return self._answer(self.http.get(f"/api/v1/{path}", params=query), status)

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self._answer(self.http.post(f"/api/v1/{path}", **content), status)

    def put(self, path: str, body: Any, status: int = 200) -> Any:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self._answer(self.http.put(f"/api/v1/{path}", **content), status)

    def send_files(self, package: Package, leave_out: str = "") -> int:
        """PUT every file that the hub lacks, but for one; returns how many were sent."""
        by_hash = {entry.sha256: entry.path for entry in package.index.entries}
        missing = self.post("releases/missing", package.index.to_bytes())["missing"]
        wanted = [sha256 for sha256 in missing if by_hash[sha256] != leave_out]
        for sha256 in wanted:
            self.put(f"blobs/{sha256}", (package.root / by_hash[sha256]).read_bytes(), 201)
        return len(wanted)

    def publish(self, package: Package) -> str:
        """Publish a package as a release; returns its digest."""
        self.send_files(package)
        return str(self.post("releases", package.index.to_bytes(), 201)["digest"])

    @staticmethod
    def _answer(answer: Any, status: int) -> Any:
        assert answer.status_code == status, (answer.status_code, answer.text)
        if status >= 400:
            body = answer.json()
            assert set(body) == {"error", "hint"} and body["error"], body
        return answer.json() if answer.content else None
