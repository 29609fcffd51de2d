"""Tensors over gRPC: every datatype, typed and raw, there and back again; and requests that say two things."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("grpc", reason="pip install 'edgeloop[agent,grpc]'")

from edge_agent.serving.calls import Answer
from edge_agent.serving.errors import BadRequest, Forbidden
from edge_agent.serving.grpc import inference_pb2 as pb
from edge_agent.serving.grpc.codec import CONTENTS, plain, read_request, write_response
from edge_agent.serving.grpc.wire import MAX_TYPED_BYTES, MOST_FIELDS, split
from edgeloop.runtime.datatypes import OIP_TO_NUMPY
from tests.doubles.grpc_door import request

NUMBERS = {name: np.dtype(dtype) for name, dtype in OIP_TO_NUMPY.items() if name != "BYTES"}


def extremes(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return np.array([[True, False]])
    info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([[info.min, info.max]], dtype)


def read(message: Any, memory: Any = None) -> Any:
    return read_request(message.SerializeToString(), memory, 0.0)


def answered(found: Any, **outputs: Any) -> Any:
    return write_response(found, Answer("a", "m", "1", tuple(outputs.items())), None)


def typed(datatype: str, shape: Any, field: str, values: Any, name: str = "x") -> Any:
    message = pb.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
    getattr(tensor.contents, field).extend(values)
    tensor.contents.SetInParent()
    return message


@pytest.mark.parametrize("datatype", NUMBERS)
def test_raw_there_and_back(datatype: str) -> None:
    values = extremes(NUMBERS[datatype])
    found = read(request(("x", datatype, values.shape, values.tobytes())))
    array = found.call.inputs["x"]
    assert array.dtype == values.dtype and (array == values).all()
    response = answered(found, y=array)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == (datatype, [1, 2])
    assert list(response.raw_output_contents) == [values.tobytes()]
    assert not response.outputs[0].HasField("contents")


@pytest.mark.parametrize("datatype", [name for name in NUMBERS if name in CONTENTS])
def test_typed_there_and_back(datatype: str) -> None:
    values = extremes(NUMBERS[datatype])
    found = read(typed(datatype, values.shape, CONTENTS[datatype], values.ravel().tolist()))
    array = found.call.inputs["x"]
    assert array.dtype == values.dtype and (array == values).all()
    response = answered(found, y=array)
    assert list(getattr(response.outputs[0].contents, CONTENTS[datatype])) == values.ravel().tolist()
    assert not response.raw_output_contents


def test_texts_there_and_back() -> None:
    texts = ["", "a", "käse", "x" * 300]
    raw = b"".join(len(t.encode()).to_bytes(4, "little") + t.encode() for t in texts)
    for message in (
        request(("x", "BYTES", [4], raw)),
        typed("BYTES", [2, 2], "bytes_contents", [t.encode() for t in texts]),
    ):
        found = read(message)
        array = found.call.inputs["x"]
        assert array.ravel().tolist() == texts
        response = answered(found, y=array)
        if found.typed:
            assert [c.decode() for c in response.outputs[0].contents.bytes_contents] == texts
        else:
            assert list(response.raw_output_contents) == [raw]


def test_half_precision_is_raw_only() -> None:
    bf16 = np.array([1.5, -2.0], np.float32)
    raw = (bf16.view(np.uint32) >> 16).astype("<u2").tobytes()
    assert (read(request(("x", "BF16", [2], raw))).call.inputs["x"] == bf16).all()
    for datatype in ("FP16", "BF16"):
        with pytest.raises(BadRequest, match=f"{datatype} has no typed contents; send it in raw_input_contents"):
            read(typed(datatype, [1], "fp32_contents", [1.0]))


def test_an_output_that_has_no_typed_form_makes_the_answer_raw() -> None:
    found = read(typed("FP32", [1], "fp32_contents", [1.0]))
    response = answered(found, half=np.ones(2, np.float16), whole=np.ones(2, np.float32))
    assert [len(raw) for raw in response.raw_output_contents] == [4, 8]


@pytest.mark.parametrize(
    ("datatype", "field", "values", "said"),
    [
        ("INT8", "int_contents", [128], "a number is outside INT8"),
        ("INT16", "int_contents", [-32769], "a number is outside INT16"),
        ("UINT8", "uint_contents", [256], "a number is outside UINT8"),
        ("UINT16", "uint_contents", [1 << 16], "a number is outside UINT16"),
        ("FP32", "fp64_contents", [1.0], "the elements of FP32 belong in fp32_contents, not in fp64_contents"),
        ("INT64", "int_contents", [1], "belong in int64_contents"),
        ("BYTES", "bytes_contents", [b"\xff"], "element 0 is not UTF-8"),
        ("FP32", "fp32_contents", [1.0, 2.0], r"shape \[1\] takes 1 values; there are 2"),
        ("FP32", "fp32_contents", [], "takes 1 values; there are 0"),
        ("BYTES", "bytes_contents", [], "takes 1 values; there are 0"),
        ("FP33", "fp32_contents", [1.0], "is not one of"),
    ],
)
def test_typed_contents_that_do_not_fit(datatype: str, field: str, values: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        read(typed(datatype, [1], field, values))


def test_two_kinds_of_contents_at_once() -> None:
    message = typed("FP32", [1], "fp32_contents", [1.0])
    message.raw_input_contents.append(b"\0\0\0\0")
    with pytest.raises(BadRequest, match="has contents; with raw_input_contents or shared memory it has none"):
        read(message)
    message = typed("FP32", [1], "fp32_contents", [1.0])
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 4
    with pytest.raises(BadRequest, match="has contents"):
        read(message)
    two_fields = typed("INT32", [1], "int_contents", [1])
    two_fields.inputs[0].contents.int64_contents.append(1)
    with pytest.raises(BadRequest, match="belong in int_contents, not in int64_contents"):
        read(two_fields)


def test_more_and_fewer_raw_contents_than_inputs() -> None:
    with pytest.raises(BadRequest, match="input 'y' has neither contents nor its part of raw_input_contents"):
        read(request(("x", "FP32", [1], b"\0\0\0\0"), ("y", "FP32", [1], None)))
    message = request(("x", "FP32", [1], b"\0\0\0\0"))
    message.raw_input_contents.append(b"")
    with pytest.raises(BadRequest, match="there are 2 raw_input_contents"):
        read(message)
    with pytest.raises(BadRequest, match="input 'x' is given twice"):
        read(request(("x", "FP32", [1], b"\0\0\0\0"), ("x", "FP32", [1], b"\0\0\0\0")))


# ── parameters ────────────────────────────────────────────────────────────────────────────────


def urgency(patience_s: float, **parameters: int) -> tuple[int, float]:
    message = request(("x", "FP32", [1], b"\0\0\0\0"))
    for name, value in parameters.items():
        message.parameters[name].int64_param = value
    call = read_request(message.SerializeToString(), None, patience_s).call
    return call.priority, call.timeout_s


def test_how_long_a_client_waits() -> None:
    assert urgency(0.0) == (0, 0.0)
    assert urgency(3.0) == (0, 3.0)
    assert urgency(3.0, timeout=500_000) == (0, 0.5)
    assert urgency(0.2, timeout=500_000, priority=2) == (2, 0.2)
    assert urgency(0.0, timeout=500_000) == (0, 0.5)
    message = request(("x", "FP32", [1], b"\0\0\0\0"))
    message.parameters["priority"].uint64_param = 3
    assert read(message).call.priority == 3


def test_parameters_come_as_they_are() -> None:
    message = request(("x", "FP32", [1], b"\0\0\0\0"))
    assert read(message).call.parameters == {}
    message.parameters["camera"].string_param = "north"
    message.parameters["line"].int64_param = 4
    assert read(message).call.parameters == {"camera": "north", "line": 4}


@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_urgency_that_is_no_number(name: str) -> None:
    with pytest.raises(BadRequest, match=f"the parameter {name} has to be a whole number"):
        urgency(0.0, **{name: -1})
    message = request(("x", "FP32", [1], b"\0\0\0\0"))
    message.parameters[name].string_param = "1"
    with pytest.raises(BadRequest, match=name):
        read(message)


def test_an_id_has_an_end() -> None:
    assert read(request(("x", "FP32", [1], b"\0\0\0\0"), id="i" * 256)).call.id == "i" * 256
    with pytest.raises(BadRequest, match="at most 256 characters"):
        read(request(("x", "FP32", [1], b"\0\0\0\0"), id="i" * 257))


def test_shared_memory_that_is_not_offered() -> None:
    message = request(("x", "FP32", [1], None))
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = 4
    with pytest.raises(Forbidden, match="the setting shared_memory allows it"):
        read(message)
    message = request(("x", "FP32", [1], b"\0\0\0\0"))
    message.outputs.add(name="y").parameters["shared_memory_region"].string_param = "r"
    message.outputs[0].parameters["shared_memory_byte_size"].int64_param = 4
    with pytest.raises(Forbidden):
        read(message)


# ── the wire ──────────────────────────────────────────────────────────────────────────────────

raws = st.lists(st.binary(max_size=300), max_size=4)


@given(st.text(max_size=200), st.text(max_size=20), raws, st.integers(0, 3))
def test_a_message_is_taken_apart_without_loss(model: str, identity: str, raw: list[bytes], inputs: int) -> None:
    message = pb.ModelInferRequest(model_name=model, id=identity, raw_input_contents=raw)
    for number in range(inputs):
        message.inputs.add(name=f"x{number}", datatype="FP32", shape=[number])
    message.parameters["p"].double_param = 0.5
    data = message.SerializeToString()
    # In any order, as a client may write them.
    for whole in (data, b"".join(reversed_fields(data))):
        rest, found = split(whole)
        again = pb.ModelInferRequest.FromString(rest)
        again.raw_input_contents.extend(bytes(view) for view in found)
        assert again == pb.ModelInferRequest.FromString(whole)


def reversed_fields(data: bytes) -> list[bytes]:
    """Raw contents first, the rest after it."""
    rest, raw = split(data)
    return [*(b"\x3a" + length(len(view)) + bytes(view) for view in raw), rest]


def length(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128, value // 128])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_bad_request(data: bytes) -> None:
    try:
        rest, raw = split(data)
    except BadRequest:
        return
    assert len(rest) + sum(map(len, raw)) <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\x05abcd",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x3a",
        b"\x0a",
        b"\x80",
        b"\x3a" + b"\xff" * 11,
        b"\x3b",
        b"\x3e",
        b"\x0d\x00",
        b"\x09\x00\x00",
    ],
)
def test_bytes_that_are_cut_or_of_no_kind(data: bytes) -> None:
    with pytest.raises(BadRequest, match="the message is no ModelInferRequest"):
        split(data)


def test_many_small_things_and_large_typed_ones_are_refused_before_they_are_made() -> None:
    with pytest.raises(BadRequest, match=f"more than {MOST_FIELDS} inputs, outputs and parameters"):
        split(b"\x2a\x00" * (MOST_FIELDS + 1))
    whole = typed("FP32", [MAX_TYPED_BYTES // 4], "fp32_contents", np.zeros(MAX_TYPED_BYTES // 4))
    with pytest.raises(BadRequest, match="send large tensors in raw_input_contents"):
        read(whole)


def test_raw_contents_are_not_copied() -> None:
    data = request(("x", "FP32", [100], np.arange(100, dtype=np.float32).tobytes())).SerializeToString()
    _, raw = split(data)
    assert np.shares_memory(np.frombuffer(raw[0], np.uint8), np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    ("rows", "said"), [((), {}), ((0,), {"audit": True}), ((3,), {"audit": True, "audit_rows": "3"})]
)
def test_an_answer_says_that_its_label_is_asked_for(rows: tuple[int, ...], said: dict[str, Any]) -> None:
    found = read(request(("x", "FP32", (1,), bytes(4))))
    response = write_response(found, Answer("a", "m", "1", (), rows), None)
    assert plain(response.parameters) == said
