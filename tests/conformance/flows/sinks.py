"""The other side of every kind of sink, real: a disk, a broker, an HTTP server. A new sink passes the kit by it."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edge_agent.flow_settings import SINKS, read_all
from edge_agent.flows.assembly import make_sink
from edge_agent.flows.brokers import Device
from edge_agent.flows.ports import Result, Sink
from edgeloop.protocol.link import Link
from tests.doubles.cable import Cable
from tests.integration.brokers import broker_or_skip, free_port
from tests.integration.hub_process import wait_for


def result(number: int, size: int = 0) -> Result:
    """A result with a document of about ``size`` bytes."""
    document = {"id": f"p-{number}", "state": number, "fill": "x" * size}
    return Result(f"p-{number}", "door", json.dumps(document).encode())


class SinkWorld(ABC):
    """The other side of a sink.

    Attributes:
        can_go: whether the other side can be away while the sink is there.
    """

    can_go = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sinks: list[Sink] = []

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """A ``[[sinks]]`` table, without a name."""

    @abstractmethod
    def got(self) -> list[str]:
        """Ids of what has arrived, in the order of its coming."""

    def go(self) -> None:
        """The other side is away from now on."""
        raise NotImplementedError("it cannot go")

    def come_back(self) -> None:
        """The other side is there again."""
        raise NotImplementedError("it cannot go")

    def sink(self, **more: Any) -> Sink:
        """A new sink over the same state: what a restart makes. It is started."""
        (settings,) = read_all(SINKS, [{"name": "world", "retry_s": 0.2, **self.settings(), **more}])
        found = make_sink(settings, ["door"], self.device(), self.folder / "state")
        found.start()
        self._sinks.append(found)
        return found

    def device(self) -> Device:
        return Device("test", "dev-1", "127.0.0.1", 1, None, None)

    def close(self) -> None:
        for sink in self._sinks:
            sink.stop(2.0)


class JsonlWorld(SinkWorld):
    """A file. A disk that is full or away is in the attacks."""

    can_go = False

    @property
    def path(self) -> Path:
        return self.folder / "results.jsonl"

    def settings(self) -> dict[str, Any]:
        return {"kind": "jsonl", "path": str(self.path)}

    def sink(self, **more: Any) -> Sink:
        (settings,) = read_all(SINKS, [{"name": "world", **self.settings(), **more}])
        found = make_sink(settings, ["door"], self.device(), self.folder / "state")
        found.start()
        self._sinks.append(found)
        return found

    def got(self) -> list[str]:
        files = [*reversed([self.path.with_name(f"{self.path.name}.{n}") for n in range(1, 100)]), self.path]
        return [json.loads(line)["id"] for file in files if file.exists() for line in file.read_text().splitlines()]


class MqttWorld(SinkWorld):
    """A topic on a real broker, with a reader that stays; the cable to the broker is what goes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.broker = broker_or_skip("mosquitto", folder)
        self.cable = Cable(self.broker.port)
        self.messages: list[tuple[str, bytes]] = []
        self.reader = Link("127.0.0.1", self.broker.port, "reader")
        self.reader.subscribe("#", lambda topic, payload: self.messages.append((topic, payload)))
        self.reader.start()

        def probed() -> bool:
            self.reader.publish("probe", b"")
            return bool(self.messages)

        # A broker acknowledges what nobody has subscribed to as well.
        wait_for(probed, 20, "the reader's subscription")

    def settings(self) -> dict[str, Any]:
        return {"kind": "mqtt", "topic": "home/{device}/{source}"}

    def device(self) -> Device:
        return Device("test", "dev-1", "127.0.0.1", self.cable.port, None, None)

    def got(self) -> list[str]:
        return [json.loads(payload)["id"] for topic, payload in list(self.messages) if topic == "home/dev-1/door"]

    def go(self) -> None:
        self.cable.cut()

    def come_back(self) -> None:
        self.cable.mend()

    def close(self) -> None:
        super().close()
        self.reader.stop(1.0)
        self.cable.cut()
        self.broker.kill()


class WebhookWorld(SinkWorld):
    """A real HTTP server that answers as it is told."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[dict[str, str], bytes], int] = lambda headers, body: 204
        self._server: ThreadingHTTPServer | None = None
        self.come_back()

    def settings(self) -> dict[str, Any]:
        return {"kind": "webhook", "url": f"http://127.0.0.1:{self.port}/hook?a=b", "timeout_s": 2.0}

    def got(self) -> list[str]:
        return [json.loads(body)["id"] for _, body in list(self.posts)]

    def go(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def come_back(self) -> None:
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                assert self.path == "/hook?a=b"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = world.answer(headers, body)
                if status == 204:
                    world.posts.append((headers, body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                # An idle connection would outlive the server, and answer for it.
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        super().close()
        self.go()


KINDS: dict[str, type[SinkWorld]] = {"jsonl": JsonlWorld, "mqtt": MqttWorld, "webhook": WebhookWorld}
