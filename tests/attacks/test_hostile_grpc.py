"""Hostile gRPC clients: each gets a clear status or is shown out; others are answered, and nothing is kept."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("grpc", reason="pip install 'edgeloop[agent,grpc]'")

import grpc

from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.grpc import door as door_module
from edge_agent.serving.grpc import inference_pb2 as pb
from edge_agent.serving.grpc.door import MAX_METADATA_BYTES, MAX_SMALL_BYTES, SERVICE
from edge_agent.serving.grpc.wire import MOST_FIELDS
from tests.doubles import grpc_door
from tests.doubles.door import NotingRecorder, loaded
from tests.doubles.grpc_door import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_BODY,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Caller,
    GrpcKit,
    calling,
    field,
    frame,
    grpc_message,
    head,
    request,
    wire,
)
from tests.doubles.installed import install
from tests.doubles.packages import make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.brokers import free_port

#: `make soak` takes longer.
SOAK = os.environ.get("EDGELOOP_SOAK") == "1"
X = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 64)
RAW = X.tobytes()
GOOD = request(("x", "FP32", [1, 64], RAW)).SerializeToString()
INFER = f"/{SERVICE}/ModelInfer".encode()
CALL = frame(HEADERS, END_HEADERS, 1, head())


@pytest.fixture(scope="module")
def recorder() -> NotingRecorder:
    return NotingRecorder("probabilities", "features")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory, recorder: NotingRecorder) -> Iterator[GrpcKit]:
    folder: Path = tmp_path_factory.mktemp("packages")
    plane = DataPlane(recorder, id_prefix="kit")
    plane.switch(loaded(make_package(folder / "digits")))
    kit = GrpcKit(plane)
    yield kit
    kit.close()
    plane.close()


@pytest.fixture(scope="module")
def caller(kit: GrpcKit) -> Iterator[Caller]:
    with calling(kit.port) as caller:
        yield caller


def served(kit: GrpcKit) -> str:
    """What a good request on a new connection gets."""
    with calling(kit.port) as caller:
        return caller.outcome(GOOD)[0]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(kit: GrpcKit) -> Iterator[None]:
    """After every attack a good request on a new connection is answered, and nothing is held."""
    yield
    door = kit.door
    until = time.monotonic() + 20
    while served(kit) != "OK":
        assert time.monotonic() < until
    while door._budget.held or door._streams or door._waiting or door._patience._until:
        assert time.monotonic() < until, (door._budget.held, door._streams, door._waiting, door._patience._until)
        time.sleep(0.01)


# ── messages that lie ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (("x", "FP32", [1, 64], RAW[:-1]), "takes 256 bytes; there are 255"),
        (("x", "FP32", [1, 64], b""), "takes 256 bytes; there are 0"),
        (("x", "FP32", [1, 64], RAW + b"x"), "takes 256 bytes; there are 257"),
        (("x", "FP32", [1, 64], None), "neither contents nor its part"),
        (("x", "FP32", [1 << 30, 1 << 30, 1 << 30], RAW), "there are 256"),
        (("x", "FP32", [-1, 64], RAW), "length in shape"),
        (("x", "FP32", [1 << 31, 64], RAW), "length in shape"),
        (("x", "FP32", [-(1 << 63), 64], RAW), "length in shape"),
        (("x", "FP32", [1] * 100_000, RAW), "at most 16 lengths"),
        (("x", "FP32", [64], RAW), "it has to be [-1, 64]"),
        (("x", "FP32", [64, 1], RAW), "it has to be [-1, 64]"),
        (("x", "FP32", [0, 64], b""), "batch is empty"),
        (("x", "INT32", [1, 64], RAW), "is int32; it has to be FP32"),
        (("x", "FP64", [1, 32], RAW), "is float64; it has to be FP32"),
        (("x", "FP32; DROP", [1, 64], RAW), "is not one of"),
        (("x", "", [1, 64], RAW), "is not one of"),
        (("x", "BYTES", [1], b"\xff" * 256), "lengths do not fit"),
        (("x", "BYTES", [1], b"\xff\xff\xff\xff"), "lengths do not fit"),
        (("x", "BYTES", [1 << 30], b""), "takes 1073741824 elements; there are 0"),
        (("x", "BYTES", [1], b"\x01\0\0\0\xff"), "is not UTF-8"),
        (("y", "FP32", [1, 64], RAW), "input 'x' is missing"),
        (("x" * 100_000, "FP32", [1, 64], RAW[:-1]), "xxx"),
    ],
)
def test_a_tensor_that_lies(caller: Caller, tensor: Any, said: str) -> None:
    code, reason = caller.outcome(request(tensor).SerializeToString())
    assert code == "INVALID_ARGUMENT"
    assert said in reason
    assert caller.outcome(GOOD) == ("OK", "")


def test_nan_from_a_client_is_not_the_models_fault(caller: Caller, recorder: NotingRecorder) -> None:
    errors = recorder.errors
    for value in (np.nan, np.inf, 3e38):
        raw = np.full((1, 64), value, np.float32).tobytes()
        code, reason = caller.outcome(request(("x", "FP32", [1, 64], raw)).SerializeToString())
        assert code == "INVALID_ARGUMENT"
        assert "holds NaN" in reason
    assert recorder.errors == errors


names = st.sampled_from(["x", "y", "", "\0", "x" * 1000, "käse"])
datatypes = st.sampled_from(["FP32", "FP64", "FP16", "BF16", "INT8", "INT64", "UINT8", "BOOL", "BYTES", "", "fp32"])
lengths = st.one_of(st.integers(0, 70), st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([1, 64, -1, 1 << 31]))
parameters = st.dictionaries(
    st.sampled_from(["priority", "timeout", "shared_memory_region", "shared_memory_byte_size", "classification", "p"]),
    st.one_of(
        st.builds(pb.InferParameter, int64_param=st.integers(-(1 << 63), (1 << 63) - 1)),
        st.builds(pb.InferParameter, uint64_param=st.integers(0, (1 << 64) - 1)),
        st.builds(pb.InferParameter, string_param=st.text(max_size=20)),
        st.builds(pb.InferParameter, double_param=st.floats()),
        st.builds(pb.InferParameter, bool_param=st.booleans()),
        st.just(pb.InferParameter()),
    ),
    max_size=2,
)
contents = st.one_of(
    st.none(),
    st.builds(
        pb.InferTensorContents,
        bool_contents=st.lists(st.booleans(), max_size=3),
        int_contents=st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=3),
        fp32_contents=st.lists(st.floats(width=32), max_size=70),
        bytes_contents=st.lists(st.binary(max_size=9), max_size=3),
    ),
)
inputs = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=names,
    datatype=datatypes,
    shape=st.lists(lengths, max_size=4),
    parameters=parameters,
    contents=contents,
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=st.sampled_from(["digits", "digits", "digits", "", "\0", "other"]),
    model_version=st.sampled_from(["", "1", "2", "-1"]),
    id=st.text(max_size=300),
    parameters=parameters,
    inputs=st.lists(inputs, max_size=3),
    outputs=st.lists(
        st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=names, parameters=parameters), max_size=2
    ),
    raw_input_contents=st.lists(st.one_of(st.just(RAW), st.binary(max_size=300)), max_size=3),
)
CLIENTS_FAULT = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "DEADLINE_EXCEEDED"}
FUZZ = settings(max_examples=3_000 if SOAK else 300, suppress_health_check=list(HealthCheck))


@FUZZ
@given(requests)
def test_any_message_gets_an_answer_or_a_reason(caller: Caller, message: Any) -> None:
    code, reason = caller.outcome(message.SerializeToString())
    assert code in CLIENTS_FAULT, reason
    assert code == "OK" or reason


@FUZZ
@given(st.binary(max_size=400))
def test_any_bytes_get_a_reason(caller: Caller, data: bytes) -> None:
    code, reason = caller.outcome(data)
    assert code in CLIENTS_FAULT - {"OK"}, reason


def test_seeded_mutations_of_a_good_message(caller: Caller) -> None:
    chance = random.Random(20261126)
    for _ in range(10_000 if SOAK else 500):
        data = bytearray(GOOD)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at : at + chance.randrange(1, 9)]
                case _:
                    data[at:at] = data[at : at + chance.randrange(1, 50)]
        code, reason = caller.outcome(bytes(data))
        assert code in CLIENTS_FAULT, reason


@pytest.mark.parametrize("name", ["ModelReady", "ModelConfig", "ModelStatistics", "RepositoryModelLoad"])
def test_other_calls_take_no_garbage(caller: Caller, name: str) -> None:
    for data in (b"\xff\xff", b"\x0a\x05abc", b"\x0a\x02\xff\xff", bytes(MAX_SMALL_BYTES - 10)):
        with pytest.raises(grpc.RpcError) as error:
            caller.call(name, data)
        assert error.value.code().name in CLIENTS_FAULT - {"OK"}  # type: ignore[attr-defined]


def test_a_message_of_many_small_things_takes_no_memory(caller: Caller) -> None:
    memory = psutil.Process().memory_info().rss
    for data in (b"\x2a\x00" * (MAX_BODY // 2 - 10), b"\x32\x00" * (MAX_BODY // 2 - 10)):
        code, reason = caller.outcome(data)
        assert code == "INVALID_ARGUMENT"
        assert f"more than {MOST_FIELDS}" in reason
    assert psutil.Process().memory_info().rss - memory < 30 << 20


def test_a_message_that_is_too_large(caller: Caller) -> None:
    code, reason = caller.outcome(bytes(MAX_BODY + 1))
    assert code == "RESOURCE_EXHAUSTED"
    assert "larger than max" in reason
    assert caller.outcome(GOOD) == ("OK", "")


def test_a_message_that_unpacks_to_too_much(kit: GrpcKit) -> None:
    memory = psutil.Process().memory_info().rss
    bomb = gzip.compress(bytes(100 << 20), 6)
    assert len(bomb) < MAX_BODY
    with wire(kit.port) as client:
        client.send(
            frame(HEADERS, END_HEADERS, 1, head(b"/" + SERVICE.encode() + b"/ModelInfer", (b"grpc-encoding", b"gzip")))
        )
        data = grpc_message(bomb, compressed=1)
        # Within the window that a server grants at first.
        for start in range(0, min(len(data), 60_000), 16_000):
            client.send(frame(DATA, 0, 1, data[start : start + 16_000]))
    with calling(kit.port) as caller:
        code, _ = caller.outcome(bytes(20 << 20), compression=grpc.Compression.Gzip)
        assert code == "RESOURCE_EXHAUSTED"
    assert psutil.Process().memory_info().rss - memory < 200 << 20


def test_metadata_without_end(kit: GrpcKit) -> None:
    with calling(kit.port) as caller:
        code, _ = caller.outcome(GOOD, metadata=[("x", "a" * (4 * MAX_METADATA_BYTES))])
        assert code == "RESOURCE_EXHAUSTED"


# ── HTTP/2 that is none ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\x00" * 100,
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        PREFACE + b"\xff" * 100,
        PREFACE + frame(SETTINGS, 0, 0, b"\0\1\0"),
        PREFACE + frame(SETTINGS, 0, 1),
        PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 0, b"x"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 1, b"x", length=(1 << 24) - 1),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 2, head()),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\x00\x7f\xff\xff\xff\xff\x0f"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(CONTINUATION, 0, 1, b""),
        PREFACE + frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0)),
        PREFACE + frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1)) * 2,
        PREFACE + frame(SETTINGS, 0, 0) + frame(PING, 0, 0, b"short"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(GOAWAY, 0, 0, b""),
        PREFACE + frame(SETTINGS, 0, 0) + frame(99, 255, 99, b"?"),
    ],
    ids=range(18),
)
def test_garbage_ends_no_more_than_its_connection(kit: GrpcKit, garbage: bytes) -> None:
    with wire(kit.port, greeting=garbage) as client:
        client.socket.shutdown(1)
        assert client.ended()


@pytest.mark.parametrize(
    "path", [b"/\xff\xfe/x", b"/inference.GRPCInferenceService/\xff", b"", b"/", b"\0", b"/" + b"a" * 9000]
)
def test_a_path_that_is_none(kit: GrpcKit, path: bytes) -> None:
    """One that is not UTF-8 ends grpcio's asyncio server for good."""
    with wire(kit.port) as client:
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head(path)))
        assert b"grpc-status" in client.read_until(b"grpc-status")


def test_a_call_without_a_request(kit: GrpcKit) -> None:
    with wire(kit.port) as client:
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head()))
        assert b"the call has no request" in client.read_until(b"no request")


@pytest.mark.parametrize("length", [MAX_BODY + 1, (1 << 31) - 1, (1 << 32) - 1])
def test_a_huge_announced_length_is_refused_before_a_byte_of_it_comes(kit: GrpcKit, length: int) -> None:
    with wire(kit.port) as client:
        client.send(CALL + frame(DATA, 0, 1, grpc_message(b"", length)))
        assert b"grpc-status\x018" in client.read_until(b"grpc-status\x018"), "RESOURCE_EXHAUSTED"


def test_two_requests_in_a_call_of_one(kit: GrpcKit) -> None:
    with wire(kit.port) as client:
        client.send(CALL + frame(DATA, END_STREAM, 1, grpc_message(GOOD) * 2))
        assert b"grpc-status\x010" in client.read_until(b"grpc-status\x010"), "the first is answered"


def test_clients_that_vanish_in_the_middle(kit: GrpcKit) -> None:
    whole = CALL + frame(DATA, END_STREAM, 1, grpc_message(GOOD))
    for cut in range(0, len(whole), 23):
        with wire(kit.port) as client:
            client.send(whole[:cut])
            if cut % 2:
                client.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: a reset, no orderly end


def test_mutations_of_a_good_connection(kit: GrpcKit) -> None:
    chance = random.Random(3)
    whole = PREFACE + frame(SETTINGS, 0, 0) + CALL + frame(DATA, END_STREAM, 1, grpc_message(GOOD))
    for _ in range(5_000 if SOAK else 300):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 5))):
            at = chance.randrange(24, len(data))
            data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
        with wire(kit.port, greeting=bytes(data)) as client:
            client.socket.shutdown(1)
            assert client.ended()


# ── floods ────────────────────────────────────────────────────────────────────────────────────


def flood(kit: GrpcKit, frames: Iterator[bytes]) -> None:
    """Send without reading, until all is sent or the connection is ended; then look at the memory."""
    memory = psutil.Process().memory_info().rss
    with wire(kit.port) as client:
        client.socket.settimeout(3.0)
        try:
            for part in frames:
                client.send(part)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
        assert served(kit) == "OK", "while the attacker is still there"
    assert psutil.Process().memory_info().rss - memory < 100 << 20


def test_settings_pings_and_window_updates_without_end(kit: GrpcKit) -> None:
    flood(kit, (frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) * 500 for _ in range(200)))
    flood(kit, (frame(PING, 0, 0, b"pingping") * 500 for _ in range(200)))
    flood(kit, (frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 500 for _ in range(200)))
    flood(kit, (frame(SETTINGS, ACK, 0) * 500 for _ in range(200)))


def test_headers_without_end(kit: GrpcKit) -> None:
    def frames() -> Iterator[bytes]:
        yield frame(HEADERS, 0, 1, head())
        for number in range(3000):
            yield frame(CONTINUATION, 0, 1, field(b"x-%d" % number, b"a" * 8000))

    flood(kit, frames())


def test_calls_that_are_taken_back_at_once(kit: GrpcKit) -> None:
    """The rapid reset of CVE-2023-44487."""
    block = head()
    flood(
        kit,
        (
            b"".join(
                frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
                for stream in range(start, start + 200, 2)
            )
            for start in range(1, 20_000, 200)
        ),
    )


def test_calls_without_end_on_one_connection(kit: GrpcKit) -> None:
    flood(kit, (frame(HEADERS, END_HEADERS, stream, head()) for stream in range(1, 4001, 2)))


def test_empty_frames_without_end(kit: GrpcKit) -> None:
    flood(kit, (part for part in (CALL, *(frame(DATA, 0, 1) * 1000 for _ in range(200)))))


def test_many_connections_that_say_nothing(kit: GrpcKit) -> None:
    silent = [grpc_door.Wire(kit.port, greeting=b"") for _ in range(door_module.MOST_CONNECTIONS + 50)]
    for connection in silent:
        connection.close()


# ── time ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RECEIVE_TIMEOUT_S", "READ_TIMEOUT_S"):
        monkeypatch.setattr(door_module, name, 0.3)


@pytest.mark.usefixtures("impatient")
def test_a_slow_sender_is_shown_out(kit: GrpcKit) -> None:
    with wire(kit.port) as client:
        client.send(CALL + frame(DATA, 0, 1, grpc_message(GOOD)[:-1]))
        assert b"grpc-status" in client.read_until(b"grpc-status")


def test_slow_senders_make_way_when_others_wait(kit: GrpcKit) -> None:
    clients = [grpc_door.Wire(kit.port) for _ in range(door_module.MOST_RECEIVING + 2)]
    try:
        for client in clients:
            client.send(CALL + frame(DATA, 0, 1, grpc_message(GOOD)[:-1]))
        with calling(kit.port) as caller:
            assert caller.outcome(GOOD) == ("OK", "")
    finally:
        for client in clients:
            client.close()


@pytest.mark.usefixtures("impatient")
def test_a_client_that_reads_no_answers_is_shown_out(kit: GrpcKit, recorder: NotingRecorder) -> None:
    """Its window is closed: the answer cannot be sent, and is not kept for ever."""
    with wire(kit.port, greeting=PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))) as client:
        before = len(recorder.recorded)
        client.send(CALL + frame(DATA, END_STREAM, 1, grpc_message(GOOD)))
        until = time.monotonic() + 20
        while len(recorder.recorded) == before:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert b"\x00\x00\x04\x03\x00\x00\x00\x00\x01" in client.read_until(b"\x00\x00\x04\x03"), "RST_STREAM"


def test_files_come_back_and_threads_have_an_end(kit: GrpcKit) -> None:
    def storm() -> None:
        for _ in range(60):
            # Of many at once some are refused.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError), wire(kit.port) as client:
                client.send(CALL + frame(DATA, 0, 1, grpc_message(GOOD)[:50]))

    files = psutil.Process().num_fds()
    for _ in range(4):
        storm()
    until = time.monotonic() + 20
    while psutil.Process().num_fds() > files + 5:
        assert time.monotonic() < until
        time.sleep(0.05)
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("grpc_")]
    assert len(mine) <= door_module.MOST_CALLS


def test_a_running_agent_keeps_nothing_and_writes_nothing(tmp_path: Path) -> None:
    port = free_port()
    agent = AgentProcess(tmp_path, grpc_port=port, max_body_bytes=MAX_BODY)
    install(make_package(tmp_path / "package"), agent.data)
    agent.start(ready=True)
    assert agent.process is not None
    process = psutil.Process(agent.process.pid)

    def storm() -> None:
        chance = random.Random(7)
        good = PREFACE + frame(SETTINGS, 0, 0) + CALL + frame(DATA, END_STREAM, 1, grpc_message(GOOD))
        for number in range(150):
            data = bytearray(good)
            data[chance.randrange(24, len(data))] ^= 1 << chance.randrange(8)
            with contextlib.suppress(OSError), wire(port, greeting=bytes(data if number % 3 else good[: number * 3])):
                pass
        with wire(port) as client:
            client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head(b"/\xff")))
            assert b"grpc-status" in client.read_until(b"grpc-status")
        with calling(port) as caller:
            for message in (b"\xff", b"\x2a\x00" * 9000, bytes(MAX_BODY + 1), GOOD[:-1], GOOD):
                caller.outcome(message)

    try:
        storm()
        files, memory = process.num_fds(), process.memory_info().rss
        for _ in range(10):
            storm()
        until = time.monotonic() + 60
        while process.num_fds() > files + 5:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert process.memory_info().rss - memory < 30 << 20
        with calling(port) as caller:
            assert caller.outcome(GOOD) == ("OK", "")
        lines = [line for line in agent.log.splitlines() if "broker" not in line and "hub" not in line]
        assert len(lines) < 20, lines
        assert agent.stop() == 0
    finally:
        agent.close()
