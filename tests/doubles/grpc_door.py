"""A real gRPC door on a free loopback port, and clients that choose every byte."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import grpc

from edge_agent.serving.calls import Answer, Call
from edge_agent.serving.errors import NotFound
from edge_agent.serving.grpc import inference_pb2 as pb
from edge_agent.serving.grpc.door import SERVICE, GrpcDoor
from edge_agent.serving.grpc.service import Service

MAX_BODY = 1 << 20


class GrpcKit:
    """A door over a plane, until it is closed."""

    def __init__(self, plane: Any, memory: Any = None, repository: Any = None) -> None:
        self.door = GrpcDoor(Service(plane, repository, memory, ("statistics",)), MAX_BODY)
        (self.port,) = self.door.open("127.0.0.1:0")

    def close(self) -> None:
        self.door.close(5.0)


class Undescribed:
    """What a plane of a test does not know."""

    def describe(self, model: str, version: str | None) -> Any:
        raise NotFound(f"there is no model {model}")


class Echo(Undescribed):
    """A plane that gives back what it is given."""

    def infer(self, call: Call) -> Answer:
        return Answer(call.id, call.model, "1", tuple(call.inputs.items()))


class Pending(Undescribed):
    """A plane whose answers never come; it remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Call, Future[Answer]]] = []

    def infer(self, call: Call) -> Future[Answer]:
        future: Future[Answer] = Future()
        self.asked.append((call, future))
        return future


class Caller:
    """Calls with bytes, so that the client's side checks nothing."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)],
        )
        self.infer = self.channel.unary_unary(f"/{SERVICE}/ModelInfer")

    def call(self, name: str, message: bytes = b"", timeout: float = 20.0) -> bytes:
        """The response's bytes; raises grpc.RpcError."""
        return bytes(self.channel.unary_unary(f"/{SERVICE}/{name}")(message, timeout=timeout))

    def outcome(self, message: bytes, timeout: float = 20.0, **options: Any) -> tuple[str, str]:
        """Code and reason of an inference."""
        try:
            self.infer(message, timeout=timeout, **options)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""  # type: ignore[attr-defined]
        return "OK", ""


@contextlib.contextmanager
def calling(port: int) -> Iterator[Caller]:
    """A caller, closed at the end."""
    caller = Caller(port)
    try:
        yield caller
    finally:
        caller.channel.close()


def request(*inputs: tuple[str, str, Any, bytes | None], model: str = "digits", **fields: Any) -> Any:
    """A ModelInferRequest: name, datatype, shape and raw bytes of each input."""
    found = pb.ModelInferRequest(model_name=model, **fields)
    for name, datatype, shape, raw in inputs:
        found.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw is not None:
            found.raw_input_contents.append(raw)
    return found


# ── HTTP/2 by hand (RFC 9113) ─────────────────────────────────────────────────────────────────

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame; ``length`` may lie."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name: bytes, value: bytes) -> bytes:
    """A header field in HPACK, neither indexed nor compressed (RFC 7541, 6.2.2)."""
    return b"\0" + _integer(len(name)) + name + _integer(len(value)) + value


def head(path: bytes = b"/inference.GRPCInferenceService/ModelInfer", *more: tuple[bytes, bytes]) -> bytes:
    """A call's header block."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"t"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]
    return b"".join(field(name, value) for name, value in fields)


def grpc_message(data: bytes, length: int | None = None, compressed: int = 0) -> bytes:
    """A message's five bytes before it, and it; ``length`` may lie."""
    return struct.pack(">BI", compressed, len(data) if length is None else length) + data


def _integer(value: int) -> bytes:
    """With a prefix of seven bits (RFC 7541, 5.1)."""
    if value < 127:
        return bytes([value])
    found, value = [127], value - 127
    while value >= 128:
        found.append(value % 128 + 128)
        value //= 128
    return bytes([*found, value])


class Wire:
    """A connection on which every byte is the test's own."""

    def __init__(self, port: int, greeting: bytes = PREFACE + frame(SETTINGS, 0, 0)) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(greeting)

    def send(self, data: bytes) -> Wire:
        self.socket.sendall(data)
        return self

    def read_until(self, wanted: bytes, most: int = 1 << 20) -> bytes:
        """What comes until ``wanted`` is in it, or the end."""
        found = b""
        while wanted not in found and len(found) < most:
            data = self.socket.recv(1 << 16)
            if not data:
                break
            found += data
        return found

    def ended(self) -> bool:
        """Whether the other side closes; waits for it."""
        with contextlib.suppress(ConnectionResetError):
            while self.socket.recv(1 << 16):
                pass
        return True

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def wire(port: int, **options: Any) -> Iterator[Wire]:
    """A connection, closed at the end."""
    connection = Wire(port, **options)
    try:
        yield connection
    finally:
        connection.close()
