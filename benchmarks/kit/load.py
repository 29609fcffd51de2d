"""A load generator that costs little: blocking-free sockets in one thread, one request under way on each connection."""

from __future__ import annotations

import json
import select
import socket
import time
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Load:
    """What a stretch of load showed: requests a second, and latencies in seconds."""

    per_second: float
    p50: float
    p99: float


def binary_request(model: str, x: np.ndarray, *, name: str = "x", output: str = "probabilities") -> bytes:
    """A whole HTTP request with a binary tensor, which asks for a binary output."""
    tensor = {"name": name, "datatype": "FP32", "shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}
    wanted = {"name": output, "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [wanted]}, separators=(",", ":")).encode()
    return (
        (
            f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\nContent-Length: {len(head) + x.nbytes}\r\n\r\n"
        ).encode()
        + head
        + x.tobytes()
    )


class Clients:
    """Connections to one server that stay open between stretches of load."""

    def __init__(self, port: int, connections: int, request: bytes) -> None:
        self._request = request
        self._sockets = {}
        self._poll = select.epoll() if hasattr(select, "epoll") else select.poll()
        for _ in range(connections):
            client = socket.create_connection(("127.0.0.1", port))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[client.fileno()] = client
            self._poll.register(client.fileno(), select.POLLIN)
        # Every answer to the same request has the same length but for the id; so the first is read with care.
        first = next(iter(self._sockets.values()))
        first.sendall(request)
        answer = first.recv(1 << 16)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answers {answer[:500]!r}")

    def run(self, seconds: float) -> Load:
        """Send for some time, each connection its next request when its answer has come."""
        sent: dict[int, float] = {}
        taken: list[float] = []
        clock, request, sockets = time.perf_counter, self._request, self._sockets
        start = clock()
        end = start + seconds
        for number, client in sockets.items():
            sent[number] = clock()
            client.send(request)
        while sent:
            for number, _ in self._poll.poll(5):
                client = sockets[number]
                answer = client.recv(1 << 16)
                now = clock()
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"the server answers {answer[:500]!r}")
                taken.append(now - sent[number])
                if now < end:
                    sent[number] = now
                    client.send(request)
                else:
                    del sent[number]
        spent = clock() - start
        return Load(len(taken) / spent, float(np.quantile(taken, 0.5)), float(np.quantile(taken, 0.99)))

    def close(self) -> None:
        """Close the connections."""
        for client in self._sockets.values():
            client.close()
