"""Hostile HTTP clients: each gets a clear error or is shown out; others are answered all along, and nothing is kept."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edge_agent.serving import http_connection
from edge_agent.serving.http_connection import BODIES_AT_ONCE, MAX_HEADER_BYTES
from tests.doubles.door import Client, Got, NotingRecorder, ServingKit, connected
from tests.doubles.packages import make_package

INFER = "/v2/models/digits/infer"
X = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 64)
MAX_BODY = 1 << 20
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 64], "parameters": {"binary_data_size": 256}}
START = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: t\r\n"


@pytest.fixture(scope="module")
def recorder() -> NotingRecorder:
    return NotingRecorder("probabilities", "features")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory, recorder: NotingRecorder) -> Iterator[ServingKit]:
    folder: Path = tmp_path_factory.mktemp("packages")
    kit = ServingKit(make_package(folder / "digits"), recorder, max_body_bytes=MAX_BODY, max_connections=40)
    yield kit
    kit.close()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(kit: ServingKit) -> Iterator[None]:
    """After every attack a good request is answered, no byte is held and no connection is open."""
    yield
    with connected(kit.port) as client:
        assert good(client).status == 200
    door = kit.running
    until = time.monotonic() + 10
    while door.call(lambda: (door.door.held_bytes, len(door.door.connections))) != (0, 0):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def client(kit: ServingKit) -> Iterator[Client]:
    with connected(kit.port) as client:
        yield client


def request_bytes(tensor: dict[str, Any] = TENSOR, binary: bytes = X.tobytes(), header: str | None = None) -> bytes:
    head = json.dumps({"inputs": [tensor]}).encode()
    return (
        START
        + b"Content-Length: %d\r\n" % (len(head) + len(binary))
        + f"Inference-Header-Content-Length: {len(head) if header is None else header}\r\n\r\n".encode()
        + head
        + binary
    )


def good(client: Client) -> Got:
    return client.send(request_bytes()).answer()


def error(got: Got) -> str:
    return str(json.loads(got.body)["error"])


# ── tensors that are not what they say ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changed", "binary", "said"),
    [
        ({}, X.tobytes()[:-1], "binary_data_size is 256, and 255 bytes are left"),
        ({}, b"", "binary_data_size is 256"),
        ({"parameters": {"binary_data_size": 255}}, X.tobytes()[:-1], "takes 256 bytes; there are 255"),
        ({}, X.tobytes() + b"x", "1 bytes follow the last binary tensor"),
        ({"parameters": {"binary_data_size": -256}}, X.tobytes(), "binary_data_size is -256"),
        ({"parameters": {"binary_data_size": 1 << 62}}, X.tobytes(), "bytes are left"),
        ({"shape": [1 << 30, 1 << 30, 1 << 30]}, X.tobytes(), "there are 256"),
        ({"shape": [-1, 64]}, X.tobytes(), "length in shape"),
        ({"shape": [1, 10**40]}, X.tobytes(), "length in shape"),
        ({"shape": [64]}, X.tobytes(), "it has to be [-1, 64]"),
        ({"shape": [64, 1]}, X.tobytes(), "it has to be [-1, 64]"),
        ({"shape": [0, 64], "parameters": {"binary_data_size": 0}}, b"", "batch is empty"),
        ({"datatype": "INT32"}, X.tobytes(), "is int32; it has to be FP32"),
        ({"datatype": "FP64", "shape": [1, 32]}, X.tobytes(), "is float64; it has to be FP32"),
        ({"datatype": "FP32; DROP"}, X.tobytes(), "is not one of"),
        ({"datatype": "BYTES", "shape": [1]}, b"\xff" * 256, "lengths do not fit"),
        ({"datatype": "BYTES", "shape": [1 << 30]}, X.tobytes(), "lengths do not fit"),
        ({"name": "y"}, X.tobytes(), "input 'x' is missing"),
    ],
)
def test_a_tensor_that_lies(client: Client, changed: dict[str, Any], binary: bytes, said: str) -> None:
    got = client.send(request_bytes({**TENSOR, **changed}, binary)).answer()
    assert got.status == 400
    assert said in error(got)
    assert good(client).status == 200, "the connection goes on: the HTTP around it was right"


@pytest.mark.parametrize("header", ["0", "-1", "999999", "1e3", "0x10", "", "９", "9" * 400, "1, 2"])
def test_a_lying_header_length(client: Client, header: str) -> None:
    got = client.send(request_bytes(header=header)).answer()
    assert got.status == 400
    assert error(got)


@pytest.mark.parametrize("shift", [-1, 1, -50, 50])
def test_a_header_length_that_cuts_the_json(client: Client, shift: int) -> None:
    head = len(json.dumps({"inputs": [TENSOR]}))
    assert client.send(request_bytes(header=str(head + shift))).answer().status == 400


def test_nan_from_a_client_is_not_the_models_fault(client: Client, kit: ServingKit, recorder: NotingRecorder) -> None:
    before = kit.plane.counters()
    errors = recorder.errors
    got = client.send(request_bytes(binary=np.full((1, 64), np.nan, np.float32).tobytes())).answer()
    assert got.status == 400
    assert "holds NaN" in error(got)
    got = client.send(request_bytes(binary=np.full((1, 64), 3e38, np.float32).tobytes())).answer()
    assert got.status == 400
    after = kit.plane.counters()
    assert (after.errors, after.nonfinite, recorder.errors) == (before.errors, before.nonfinite, errors)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"inputs": ' + b"[" * 500_000,
        b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ' + b"[" * 900 + b"]" * 900 + b"}]}",
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [' + b"9" * 5000 + b"]}]}",
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [' + b"9" * 4000 + b"]}]}",
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [9], "data": ["'
        + b"a" * 50_000
        + b'"'
        + b',""' * 200_000
        + b"]}]}",
        b"\x00\x01\x02\xff",
        b"\xef\xbb\xbf{}",
        b'{"inputs": [], "id": "\\ud800"}',
    ],
    ids=["deep list", "deep inputs", "deep data", "long number", "large number", "texts", "bytes", "bom", "surrogate"],
)
def test_hostile_json(client: Client, body: bytes) -> None:
    memory = psutil.Process().memory_info().rss
    got = client.request("POST", INFER, body)
    assert got.status == 400
    assert error(got)
    assert psutil.Process().memory_info().rss - memory < 200 << 20


def test_an_id_that_is_half_a_character_is_answered(client: Client) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": X.ravel().tolist()}
    got = client.request("POST", INFER, json.dumps({"inputs": [tensor], "id": "\ud800"}).encode())
    assert got.status == 200
    assert json.loads(got.body)["id"] == "\ud800"


# ── HTTP that is none ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"HELO mail\r\n\r\n",
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET /\r\nHost: t HTTP/1.1\r\n\r\n",
        START + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        START + b"Content-Length: -5\r\n\r\n",
        START + b"Content-Length: +5\r\n\r\nabcde",
        START + b"Content-Length: 5 5\r\n\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        START + b"Transfer-Encoding: identity, chunked, gzip\r\n\r\n",
    ],
    ids=range(18),
)
def test_garbage_is_refused_and_shown_out(client: Client, garbage: bytes) -> None:
    got = client.send(garbage).answer()
    assert got.status in (400, 404, 501)
    assert error(got)
    if got.status == 400:
        assert got.headers["connection"] == "close"
        assert client.ended()


def test_a_second_request_inside_a_body_is_not_taken_for_one(client: Client) -> None:
    inner = b"POST /edgeloop/v1/flush HTTP/1.1\r\nHost: t\r\n\r\n"
    client.send(START + b"Content-Length: %d\r\n\r\n" % len(inner) + inner)
    assert client.answer().status == 400
    assert good(client).status == 200


def test_an_answer_to_an_earlier_request_comes_before_the_refusal(client: Client) -> None:
    client.send(request_bytes() + b"garbage\r\n\r\n")
    assert client.answer().status == 200
    assert client.answer().status == 400
    assert client.ended()


@pytest.mark.parametrize("length", [MAX_BODY + 1, 10 << 30, 1 << 62, 10**18])
def test_a_huge_content_length_is_refused_before_a_byte_of_it_comes(client: Client, length: int) -> None:
    got = client.send(START + b"Content-Length: %d\r\n\r\n" % length).answer()
    assert got.status == 413
    assert "max_body_bytes" in error(got)


def test_the_reason_reaches_a_client_that_goes_on_sending(client: Client) -> None:
    client.send(START + b"Content-Length: %d\r\n\r\n" % (50 << 20))
    for _ in range(32):
        client.send(bytes(1 << 16))
    assert client.answer().status == 413


def test_chunks_without_end(client: Client) -> None:
    client.send(START + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    with pytest.raises((BrokenPipeError, ConnectionResetError, TimeoutError, AssertionError)):
        for _ in range(2000):
            client.send(chunk)
        raise AssertionError("it took 128 MB")


def test_headers_without_end(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\n")
    for number in range(12 * MAX_HEADER_BYTES // 1000):
        client.send(b"X-%d: %b\r\n" % (number, b"a" * 1000))
    got = client.answer()
    assert got.status == 431
    assert client.ended()


def test_a_path_without_end(client: Client) -> None:
    client.send(b"GET /")
    for _ in range(12):
        client.send(b"a" * MAX_HEADER_BYTES)
    assert client.answer().status == 431


def test_trailers_without_end(client: Client) -> None:
    client.send(START + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
    for number in range(12 * MAX_HEADER_BYTES // 1000):
        client.send(b"X-%d: %b\r\n" % (number, b"a" * 1000))
    assert client.answer().status == 431


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PATCH", "DELETE", "PROPFIND"])
def test_other_methods(client: Client, method: str) -> None:
    target = "t:80" if method == "CONNECT" else INFER
    assert client.request(method, target).status in (400, 404, 405)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/../../etc/passwd",
        "/v2/models/%2e%2e%2f%2e%2e/infer",
        "/%00",
        "/v2/models/%ff",
        "/" + "v2/" * 5000,
        "*",
    ],
)
def test_strange_paths(client: Client, path: str) -> None:
    got = client.request("GET", path)
    assert got.status in (404, 405)
    assert len(got.body) < 2000


# ── time and memory ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUEST_TIMEOUT_S", "READ_TIMEOUT_S", "LINGER_S"):
        monkeypatch.setattr(http_connection, name, 0.3)
    monkeypatch.setattr(http_connection, "IDLE_TIMEOUT_S", 0.6)


@pytest.mark.usefixtures("impatient")
def test_a_slow_sender_is_shown_out(kit: ServingKit) -> None:
    with connected(kit.port) as client:
        start = time.monotonic()
        client.send(request_bytes()[:-1])
        got = client.answer()
        assert got.status == 408
        assert "not finished within" in error(got)
        assert client.ended()
        assert time.monotonic() - start < 5


@pytest.mark.usefixtures("impatient")
def test_a_sender_of_one_byte_now_and_then_is_shown_out(kit: ServingKit) -> None:
    with connected(kit.port) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.send(b"GET /v2 HTTP/1.1\r\nHost: t\r\nX: ")
        for _ in range(100):
            time.sleep(0.05)
            client.send(b"a")


@pytest.mark.usefixtures("impatient")
def test_an_idle_connection_is_closed(kit: ServingKit) -> None:
    with connected(kit.port) as client:
        assert good(client).status == 200
        assert client.ended()


@pytest.mark.usefixtures("impatient")
def test_a_client_that_reads_nothing_is_cut_off_and_fills_no_memory(kit: ServingKit) -> None:
    memory = psutil.Process().memory_info().rss
    with connected(kit.port) as client:
        many = request_bytes() * 200
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(5000):  # 500 MB of requests
                client.send(many)
    assert psutil.Process().memory_info().rss - memory < 100 << 20


def test_all_bodies_together_are_bounded(kit: ServingKit) -> None:
    clients = [Client(kit.port) for _ in range(BODIES_AT_ONCE + 2)]
    try:
        refused = 0
        for client in clients:
            client.send(START + b"Content-Length: %d\r\n\r\n" % MAX_BODY + bytes(MAX_BODY - 1))
        until = time.monotonic() + 10
        while kit.running.call(lambda: kit.running.door.held_bytes) < BODIES_AT_ONCE * (MAX_BODY - 1):
            assert time.monotonic() < until
        for client in clients:
            client.socket.settimeout(0.3)
            try:
                got = client.answer()
            except TimeoutError:
                continue
            assert got.status == 503
            refused += 1
        assert refused == 2, "the others keep their place"
    finally:
        for client in clients:
            client.close()


def test_quiet_clients_make_way_when_all_places_are_taken(kit: ServingKit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle ones and slow senders alike, the quietest first."""
    limit = kit.running.door.max_connections
    clients = [Client(kit.port) for _ in range(limit)]
    try:
        for slow in clients[1::2]:
            slow.send(START + b"Content-Length: 500\r\n\r\n{")
        assert good(clients[-2]).status == 200
        monkeypatch.setattr(http_connection, "MAKES_WAY_S", 0.0)
        for _ in range(limit):
            clients.append(Client(kit.port))
            assert good(clients[-1]).status == 200
        assert all(client.ended() for client in clients[0:limit:2])
        assert {client.answer().status for client in clients[1:limit:2]} == {408}
        assert len(kit.running.door.connections) <= limit + limit // 2, "those that are being shown out still read why"
    finally:
        for client in clients:
            client.close()


def test_more_clients_than_there_is_room_for(kit: ServingKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAKES_WAY_S", 3600.0)
    limit = kit.running.door.max_connections
    clients = [Client(kit.port) for _ in range(limit)]
    try:
        assert good(clients[0]).status == 200 and good(clients[-1]).status == 200
        with connected(kit.port) as late:
            got = late.answer()
            assert got.status == 503
            assert "clients are connected already" in error(got)
            assert late.ended()
        assert good(clients[limit // 2]).status == 200
    finally:
        for client in clients:
            client.close()


def test_clients_that_vanish_in_the_middle(kit: ServingKit) -> None:
    whole = request_bytes()
    for cut in range(0, len(whole), 37):
        client = Client(kit.port)
        client.send(whole[:cut])
        # Half of them with a reset instead of an orderly end.
        if cut % 2:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


def test_seeded_mutations_of_a_good_request(kit: ServingKit) -> None:
    """Bytes changed, cut out, doubled: an answer or an end, never a 500 and never a hang."""
    chance = random.Random(20261123)
    whole = request_bytes()
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data[at] = chance.randrange(256)
            elif kind == 1:
                del data[at : at + chance.randrange(1, 9)]
            elif kind == 2:
                data[at:at] = data[at : at + chance.randrange(1, 50)]
            else:
                data[at:at] = chance.choice((b"\r\n", b"\0", b"-1", b"99999999999", b'"', b"{", b"]", b"\xff"))
        with connected(kit.port) as client:
            try:
                client.send(bytes(data))
                client.socket.shutdown(socket.SHUT_WR)
                assert client.answer().status < 500, bytes(data)
            except TimeoutError:
                raise
            except (EOFError, OSError):  # it has ended
                continue


# ── feedback ──────────────────────────────────────────────────────────────────────────────────


def test_feedback_for_an_unknown_id_names_it(client: Client) -> None:
    got = client.request("POST", "/edgeloop/v1/feedback", b'{"items": [{"id": "' + b"x" * 5000 + b'", "label": 1}]}')
    assert got.status == 404
    assert "no such prediction is kept" in error(got)


def test_feedback_that_is_hostile(client: Client) -> None:
    for body in (b"[" * 100_000, b'{"items": ' + b"[" * 100_000, b'{"items": [{"id": "a", "label": 1e999}]}', b"\xff"):
        got = client.request("POST", "/edgeloop/v1/feedback", body)
        assert got.status == 400
        assert "feedback has to be" in error(got) or "label" in error(got)
