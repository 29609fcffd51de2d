"""How escalations leave: small ones over MQTT, large ones over HTTPS with the device's certificate, bounded."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_agent.escalating import carriers
from edge_agent.escalating.carriers import MQTT_BYTES, PATH, WAITING_UPLOADS, Carriers, Hub, Outcome
from edgeloop.protocol import Answers, TeacherAnswer
from tests.doubles.fleet_ca import FleetCA

LARGE = b"x" * (MQTT_BYTES + 1)
ANSWER = TeacherAnswer("a", 0, 3, 0.9, "big")


class NotingLink:
    """A link that takes what is published, or does not."""

    def __init__(self) -> None:
        self.connected, self.packet_limit, self.takes = True, 0, True
        self.published: list[tuple[str, bytes]] = []

    def publish(self, topic: str, payload: bytes) -> bool:
        self.published.append((topic, payload))
        return self.takes


class Server:
    """A hub's address for escalations, behind mutual TLS; ``gate`` holds its answers up."""

    def __init__(self, ca: FleetCA) -> None:
        self.status, self.body = 200, Answers((), escalated=(ANSWER,)).to_bytes()
        self.got: list[tuple[str, int, str]] = []
        self.gate = threading.Event()
        self.gate.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = len(self.rfile.read(int(self.headers["Content-Length"])))
                subject = dict(part[0] for part in self.connection.getpeercert()["subject"])  # type: ignore[attr-defined]
                server.got.append((self.path, size, subject["commonName"]))
                server.gate.wait(20)
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, *_: Any) -> None:
                return

        who = ca.issue("hub", "server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(who.certificate, who.key)
        context.load_verify_locations(ca.file)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


class World:
    """Carriers of the device ``dev-1`` between a link and a hub."""

    def __init__(self, folder: Path) -> None:
        self.ca = FleetCA(folder)
        self.server, self.link = Server(self.ca), NotingLink()
        self.own = Hub(self.server.url, self.ca.context(self.ca.issue("dev-1")))
        self.hub = self.own
        self.carriers = Carriers(self.link, "topic", lambda: self.hub)  # type: ignore[arg-type]

    def send(self, payload: bytes) -> Outcome:
        """Send, and wait for what becomes of it."""
        told: list[Outcome] = []
        done = threading.Event()

        def tell(outcome: Outcome) -> None:
            told.append(outcome)
            done.set()

        self.carriers.send(payload, 10.0, tell)
        assert done.wait(20)
        return told[0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("ca"))
    yield world
    world.carriers.stop()
    world.server.close()


@pytest.fixture
def world(shared: World) -> World:
    shared.link.published.clear()
    shared.server.got.clear()
    shared.link.takes, shared.link.packet_limit, shared.server.status = True, 0, 200
    shared.hub = shared.own
    return shared


def test_small_ones_go_over_mqtt(world: World) -> None:
    assert world.send(b"x" * MQTT_BYTES) == Outcome(True)
    assert len(world.link.published) == 1 and not world.server.got
    world.link.takes = False
    outcome = world.send(b"x")
    assert not outcome.left and outcome.reason


def test_large_ones_go_over_https_as_this_device(world: World) -> None:
    assert world.send(LARGE) == Outcome(True, (ANSWER,))
    assert world.server.got == [(PATH, len(LARGE), "dev-1")] and not world.link.published


def test_a_broker_that_takes_small_packets_only_gets_no_others(world: World) -> None:
    world.link.packet_limit = 1000
    assert world.send(b"x" * 950).answers == (ANSWER,)
    assert world.send(b"x" * 900) == Outcome(True)


@pytest.mark.parametrize("status", [202, 204])
def test_what_the_hub_has_taken_is_answered_over_mqtt(world: World, status: int) -> None:
    world.server.status, body = status, world.server.body
    world.server.body = b""
    assert world.send(LARGE) == Outcome(True)
    world.server.body = body


def test_what_the_hub_takes_at_the_clients_deadline_has_left(world: World) -> None:
    patient = Carriers(world.link, "topic", lambda: world.hub)  # type: ignore[arg-type]
    told: list[Outcome] = []
    done = threading.Event()

    def tell(outcome: Outcome) -> None:
        told.append(outcome)
        done.set()

    world.server.gate.clear()
    threading.Timer(0.3, world.server.gate.set).start()
    patient.send(LARGE, 0.01, tell)
    assert done.wait(20)
    patient.stop()
    assert told == [Outcome(True, (ANSWER,))] and len(world.server.got) == 1


def test_whatever_goes_wrong_is_a_reason(world: World) -> None:
    world.server.status = 429
    assert "429" in world.send(LARGE).reason
    world.server.status, good = 200, world.server.body
    world.server.body = b"\xff\xff"
    found = world.send(LARGE)
    assert not found.left and found.reason
    world.server.body = good
    world.hub = Hub("http://127.0.0.1:1")
    assert "does not answer" in world.send(LARGE).reason
    world.hub = Hub(world.server.url, world.ca.context(None))  # without a certificate
    assert not world.send(LARGE).left


def test_a_hub_that_hangs_holds_up_a_bounded_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "UPLOADS", 1)
    hanging = Carriers(world.link, "topic", lambda: world.hub)  # type: ignore[arg-type]
    world.server.gate.clear()
    told: list[Outcome] = []
    enough = threading.Semaphore(0)

    def tell(outcome: Outcome) -> None:
        told.append(outcome)
        enough.release()

    for _ in range(WAITING_UPLOADS + 10):
        hanging.send(LARGE, 10.0, tell)
    refused = [outcome for outcome in told if "too many" in outcome.reason]
    assert 9 <= len(refused) <= 10 and len(told) == len(refused)
    world.server.gate.set()
    for _ in range(WAITING_UPLOADS + 10):
        assert enough.acquire(timeout=20)
    assert sum(outcome.left for outcome in told) == WAITING_UPLOADS + 10 - len(refused)
    hanging.stop()
