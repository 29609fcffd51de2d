import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from edge_agent.hub_upload import NoAnswer, Uploads


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, int]]] = []
    go_on: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.client_address[1]))
        if body == b"slow":
            self.go_on.wait(20)
        self.send_response(507 if body == b"full" else 202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = body == b"last"  # without a word, as a hub does whose connections have rested

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/below"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_uploads_share_a_connection_and_outlive_one_that_was_closed(hub: str) -> None:
    uploads = Uploads(hub, None)
    for body in (b"one", b"two", b"last", b"again"):
        answer = uploads.post("/api/v1/samples", body)
        assert answer.taken and answer.body == body
    refused = uploads.post("/api/v1/samples", b"full")
    uploads.close()
    assert refused.status == 507 and not refused.taken
    ports = [port for path, port in _Hub.seen if path == "/below/api/v1/samples"]
    assert len(ports) == 5 and len(set(ports)) == 2


def test_what_a_slow_hub_has_already_is_not_sent_again(hub: str) -> None:
    uploads = Uploads(hub, None)
    assert uploads.post("/slow", b"one").taken
    with pytest.raises(NoAnswer, match="does not answer"):
        uploads.post("/slow", b"slow", timeout_s=0.2)
    _Hub.go_on.set()
    assert uploads.post("/slow", b"two").body == b"two"
    uploads.close()
    assert len([path for path, _ in _Hub.seen if path == "/below/slow"]) == 3


def test_a_hub_that_is_away_is_no_answer() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    port = server.server_port
    server.server_close()
    with pytest.raises(NoAnswer, match="does not answer"):
        Uploads(f"http://127.0.0.1:{port}", None).post("/api/v1/samples", b"")
