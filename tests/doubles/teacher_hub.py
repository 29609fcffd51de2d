"""A hub that does nothing but ask a channel's devices for hard inputs and answer them, over real MQTT and HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgeloop.cascade.policy import KEY, EscalationPolicy
from edgeloop.protocol import Answers, ChannelDocument, Escalation, SignedChannel, TeacherAnswer, Topics
from edgeloop.protocol.link import Link

Teacher = Callable[[Escalation], TeacherAnswer]


class TeacherHub:
    """Answers escalations with ``teacher``.

    Attributes:
        teacher: what it says of each input.
        delay_s: that it takes.
        silent: whether it says nothing at all.
        status: of its HTTP answers.
        got: escalations that have come, and over what: ``mqtt`` or ``http``.
    """

    def __init__(self, fleet: str, broker_port: int, teacher: Teacher) -> None:
        self.teacher, self.delay_s, self.silent, self.status = teacher, 0.0, False, 200
        self.got: list[tuple[Escalation, str]] = []
        self._serial = time.time_ns()
        self._topics = Topics(fleet)
        self.link = Link("127.0.0.1", broker_port, "teacher hub", backoff_s=(0.05, 0.3))
        self.link.subscribe(self._topics.every("escalations"), self._on_escalation)
        self.link.start()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize, disable_nagle_algorithm = 1 << 16, True

            def do_POST(self) -> None:
                payload = self.rfile.read(int(self.headers["Content-Length"]))
                answer = hub.take(payload, "http")
                body = b"" if answer is None else answer.to_bytes()
                self.send_response(hub.status if body else 202)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def ask_for(self, policy: EscalationPolicy, channel: str = "stable") -> None:
        """Have the channel's devices follow a policy."""
        self._serial += 1
        document = ChannelDocument(channel, self._serial, policy={KEY: policy.to_wire()})
        payload = SignedChannel(document.to_bytes()).to_bytes()
        assert self.link.confirm(self._topics.channel(channel), payload, retain=True)

    def take(self, payload: bytes, way: str) -> Answers | None:
        """One escalation, and the answer to it."""
        escalation = Escalation.from_bytes(payload)
        self.got.append((escalation, way))
        if self.silent:
            return None
        time.sleep(self.delay_s)
        return Answers((), escalated=(self.teacher(escalation),))

    def say(self, device: str, *answers: TeacherAnswer) -> None:
        """Answer late, or what nobody has asked."""
        assert self.link.publish(self._topics.answers(device), Answers((), escalated=answers).to_bytes())

    def _on_escalation(self, topic: str, payload: bytes) -> None:
        def answer() -> None:
            found = self.take(payload, "mqtt")
            if found is not None:
                self.link.publish(self._topics.answers(self._topics.parse(topic).device or ""), found.to_bytes())

        threading.Thread(target=answer, daemon=True).start()

    def stop(self) -> None:
        """End its threads."""
        self.link.stop(1.0)
        self._server.shutdown()
        self._server.server_close()
