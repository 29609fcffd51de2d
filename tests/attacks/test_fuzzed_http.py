"""Requests that are nearly right, made by Hypothesis and sent in pieces: an answer or an end, and nothing is kept."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.serving.tensors import DATATYPES
from tests.doubles.door import Client, Got, NotingRecorder, ServingKit, connected
from tests.doubles.packages import make_package
from tests.integration.hub_process import wait_for

SOAK = os.environ.get("EDGELOOP_SOAK") == "1"
EXAMPLES = 3000 if SOAK else 150
MAX_BODY = 1 << 18
X = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 64)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingKit]:
    folder: Path = tmp_path_factory.mktemp("packages")
    models = folder / "models"
    models.mkdir()
    kit = ServingKit(
        make_package(folder / "digits"),
        NotingRecorder("probabilities"),
        repository=models,
        memory=["/edgeloop-"],
        max_body_bytes=MAX_BODY,
    )
    yield kit
    kit.close()


# ── what is nearly a request ──────────────────────────────────────────────────────────────────

ODD = st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=8) | st.just([])
PARAMETERS = st.dictionaries(
    st.sampled_from(
        [
            "binary_data_size",
            "binary_data",
            "binary_data_output",
            "classification",
            "priority",
            "timeout",
            "shared_memory_region",
            "shared_memory_offset",
            "shared_memory_byte_size",
            "triton_x",
            "note",
        ]
    ),
    st.sampled_from([256, 0, 1, 4, -1, True, "frame", 1 << 40]) | ODD,
    max_size=3,
)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "x", "x", "y", ""]) | ODD,
        "datatype": st.sampled_from(["FP32", "FP32", *DATATYPES]) | ODD,
        "shape": st.sampled_from([[1, 64], [1, 64], [2, 32], [64], [0, 64], [-1, 64], [1 << 31, 1 << 31]])
        | st.lists(st.integers(-2, 1 << 33), max_size=3)
        | ODD,
    },
    optional={
        "data": st.sampled_from([X.tolist(), X.ravel().tolist(), [[0.5] * 32] * 2]) | st.lists(ODD, max_size=3) | ODD,
        "parameters": st.just({"binary_data_size": 256}) | PARAMETERS | ODD,
    },
)
OUTPUTS = st.fixed_dictionaries(
    {"name": st.sampled_from(["label", "probabilities", "features", "nothing"]) | ODD},
    optional={"parameters": PARAMETERS | ODD},
)
HEADS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3) | ODD},
    optional={
        "id": st.text(max_size=300) | ODD,
        "outputs": st.lists(OUTPUTS, max_size=4) | ODD,
        "parameters": PARAMETERS | ODD,
    },
)
PATHS = st.sampled_from(
    [
        *["/v2/models/digits/infer"] * 6,
        "/v2/models/digits/versions/1/infer",
        "/v2/models/other/infer",
        "/v2/models/digits/stats",
        "/v2/models/digits/config",
        "/v2/repository/index",
        "/v2/repository/models/digits/unload",
        "/v2/systemsharedmemory/region/frame/register",
        "/v2/systemsharedmemory/region/frame/status",
        "/v2/systemsharedmemory/unregister",
        "/v2/cudasharedmemory/region/frame/register",
        "/edgeloop/v1/feedback",
        "/v2/health/ready?a=b",
        "/v2//",
        "/%00%ff",
    ]
)


@dataclass(frozen=True)
class Asked:
    """One request as bytes; ``whole``: whether its HTTP is what it says, so that it has to be answered."""

    sent: bytes
    whole: bool


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    head = json.dumps(draw(HEADS)).encode() if draw(st.integers(0, 9)) else draw(st.binary(max_size=60))
    body = head + draw(st.sampled_from([b"", X.tobytes(), X.tobytes()[:-1], X.tobytes() * 3]) | st.binary(max_size=40))
    lines = []
    announced = draw(st.sampled_from([None, "right", "right", "0", "-1", "9" * 30, str(len(head) + 1), "x", ""]))
    if announced is not None:
        lines.append(f"Inference-Header-Content-Length: {len(head) if announced == 'right' else announced}")
    match draw(st.sampled_from([None, None, None, "gzip", "deflate", "lie", "cut", "br"])):
        case "gzip":
            body = gzip.compress(body)
            lines.append("Content-Encoding: gzip")
        case "deflate":
            body = zlib.compress(body)
            lines.append("Content-Encoding: deflate")
        case "cut":
            body = gzip.compress(body)[:-3]
            lines.append("Content-Encoding: gzip")
        case "lie":
            lines.append("Content-Encoding: deflate")
        case "br":
            lines.append("Content-Encoding: br")
    if draw(st.booleans()):
        lines.append(f"Accept-Encoding: {draw(st.sampled_from(['gzip', 'deflate;q=0.1', 'br', ';;,', '*']))}")
    if draw(st.integers(0, 9)) == 0:
        lines.append(draw(st.sampled_from(["Connection: close", "Expect: 100-continue", "X: \xff"])))
    whole = True
    if draw(st.booleans()):
        length = len(body) + draw(st.sampled_from([0, 0, 0, 0, 0, 1, -1, 1 << 40]))
        whole = length == len(body)
        lines.append(f"Content-Length: {max(length, 0)}")
    else:
        lines.append("Transfer-Encoding: chunked")
        size = draw(st.sampled_from([1, 7, 4096]))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    method = draw(st.sampled_from(["POST"] * 8 + ["GET", "PUT"]))
    start = "\r\n".join([f"{method} {draw(PATHS)} HTTP/1.1", "Host: t", *lines, "", ""])
    return Asked(start.encode("latin-1") + body, whole)


# ── the attack ────────────────────────────────────────────────────────────────────────────────


def talk(port: int, asked: list[Asked], cuts: list[int], end: str) -> list[Got]:
    """Send the requests in pieces, end our half, and take every answer until the door ends its own.

    A request that is whole has to be answered, so that is waited for; whoever ends its half is taken to be gone.
    """
    sent = b"".join(request.sent for request in asked)
    found: list[Got] = []
    with connected(port) as client:
        at = 0
        try:
            for cut in [*sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]:
                client.send(sent[at:cut])
                at = cut
            if end == "reset":
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return found
            if asked[0].whole:
                found.append(client.final_answer())
            with contextlib.suppress(OSError):  # it may have ended already
                client.socket.shutdown(socket.SHUT_WR)
            while True:
                found.append(client.final_answer())
        except (EOFError, ConnectionResetError, BrokenPipeError):
            return found


@pytest.mark.timeout(3600)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    asked=st.lists(requests(), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 5000), max_size=4),
    end=st.sampled_from(["half", "half", "half", "reset"]),
)
def test_what_is_nearly_a_request_is_answered_or_refused(
    kit: ServingKit, asked: list[Asked], cuts: list[int], end: str
) -> None:
    found = talk(kit.port, asked, cuts, end)
    for got in found:
        assert got.status < 500, got
        assert got.status < 400 or json.loads(got.body)["error"]
    # Bytes that follow a request for the end of the connection make the kernel reset it, perhaps before it is read.
    asks_for_more = len(asked) > 1 and b"Connection: close" in asked[0].sent
    if end == "half" and asked[0].whole and not asks_for_more:
        assert found, "a whole request is always answered"


GOOD_BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": X.tolist()}]}).encode()
GOOD = Asked(
    b"POST /v2/models/digits/infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(GOOD_BODY), GOOD_BODY), whole=True
)


def test_nothing_is_left_of_it(kit: ServingKit) -> None:
    """After all of that: no byte is held, no connection, no descriptor, no region; and the door answers."""
    process, door = psutil.Process(), kit.running

    def quiet() -> bool:
        return door.call(lambda: (door.door.held_bytes, len(door.door.connections))) == (0, 0)

    for _ in range(50):
        talk(kit.port, [GOOD], [3, 100], "half")
    wait_for(quiet, 20, "connections to end")
    files, memory = process.num_fds(), process.memory_info().rss
    broken = [
        Asked(GOOD.sent[:-9], whole=False),
        Asked(GOOD.sent.replace(b"[1, 64]", b"[9, 64]"), whole=True),
        Asked(b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nabcde", whole=True),
    ]
    for number in range(2000 if SOAK else 200):
        talk(kit.port, [GOOD, broken[number % 3]], [number], "reset" if number % 2 else "half")
    wait_for(lambda: quiet() and process.num_fds() <= files, 20, "connections and descriptors to end")
    assert process.memory_info().rss - memory < 30 << 20
    assert kit.memory is not None and kit.memory.status(None) == []
    with connected(kit.port) as client:
        assert client.send(GOOD.sent).answer().status == 200


def test_many_slow_and_half_closed_clients_do_not_keep_others_waiting(kit: ServingKit) -> None:
    slow = [Client(kit.port) for _ in range(100)]
    try:
        for number, client in enumerate(slow):
            client.send(b"POST /v2/models/digits/infer HTTP/1.1\r\nContent-Length: 500\r\n\r\n{"[: 20 + number % 50])
            if number % 3 == 0:
                client.socket.shutdown(socket.SHUT_WR)
        with connected(kit.port) as client:
            for _ in range(20):
                assert client.send(GOOD.sent).answer().status == 200
    finally:
        for client in slow:
            client.close()
