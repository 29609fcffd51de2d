"""A server that speaks as OpenAI's does, over real HTTP, and misbehaves as it is told to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What it does with a request: the body as JSON → (status, headers, body), or None where it has dealt with the socket.
Behaviour = Callable[[dict[str, Any], socket.socket], tuple[int, dict[str, str], bytes] | None]


def completion(content: Any, *, usage: Any = (100, 10), finish_reason: str = "stop") -> bytes:
    """The body of a chat completion."""
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}],
    }
    if isinstance(usage, tuple):
        usage = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return json.dumps(body | ({"usage": usage} if usage is not None else {})).encode()


def says(content: Any, **more: Any) -> Behaviour:
    """It answers with this content, as JSON where it is no text."""
    text = content if isinstance(content, str | None) else json.dumps(content)
    return lambda _request, _socket: (200, {}, completion(text, **more))


def refuses(status: int, body: bytes = b'{"error": {"message": "no"}}', **headers: str) -> Behaviour:
    """It answers with a status that is no success."""
    return lambda _request, _socket: (status, {name.replace("_", "-"): text for name, text in headers.items()}, body)


def sends(body: bytes) -> Behaviour:
    """It answers 200 with these bytes."""
    return lambda _request, _socket: (200, {}, body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that has had enough of it is none."""


class OpenAiServer:
    """``behaviours`` are for the next requests; after them each gets ``then``."""

    def __init__(self, then: Behaviour, *behaviours: Behaviour) -> None:
        self.then, self.behaviours = then, list(behaviours)
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.stopping = threading.Event()
        server, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    server.requests.append((self.path, headers, request))
                    behaviour = server.behaviours.pop(0) if server.behaviours else server.then
                answer = behaviour(request, self.connection)
                if answer is None:
                    self.close_connection = True
                    return
                status, more, body = answer
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the client has had enough

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def sleeps(self, _request: dict[str, Any], _socket: socket.socket) -> None:
        """It says nothing."""
        self.stopping.wait(30)

    def trickles(self, _request: dict[str, Any], connection: socket.socket) -> None:
        """It sends a byte now and then: never silent for long, and never done."""
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not self.stopping.wait(0.02):
                connection.sendall(b" ")
        except OSError:
            return

    def trickles_headers(self, _request: dict[str, Any], connection: socket.socket) -> None:
        """The same with its headers."""
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
            while not self.stopping.wait(0.02):
                connection.sendall(b"x")
        except OSError:
            return

    def pours(self, _request: dict[str, Any], connection: socket.socket) -> None:
        """It sends without end."""
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            block = b"10000\r\n" + b"0" * 0x10000 + b"\r\n"
            until = time.monotonic() + 20
            while not self.stopping.is_set() and time.monotonic() < until:
                connection.sendall(block)
        except OSError:
            return

    def hangs_up(self, _request: dict[str, Any], connection: socket.socket) -> None:
        """It closes the connection without a word."""
        connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
