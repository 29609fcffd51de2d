"""The Open Inference Protocol's bytes: every datatype there and back, and every mistake named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.serving import oip, tensors
from edge_agent.serving.errors import BadRequest, Forbidden
from edge_agent.serving.parameters import Place, of_answer
from edge_agent.serving.tensors import DATATYPES, WIRE
from edgeloop.runtime.datatypes import OIP_TO_NUMPY

NUMBERS = [name for name in OIP_TO_NUMPY if name != "BYTES"]


def body(*tensors: dict[str, Any], binary: bytes = b"", **more: Any) -> tuple[bytes, int | None]:
    head = json.dumps({"inputs": list(tensors), **more}).encode()
    return head + binary, len(head) if binary else None


def tensor(data: Any = None, datatype: str = "FP32", shape: Any = (2, 2), **more: Any) -> dict[str, Any]:
    given = {} if data is None else {"data": data}
    return {"name": "x", "datatype": datatype, "shape": list(shape), **given, **more}


def example(datatype: str) -> np.ndarray[Any, Any]:
    values = np.array([[0, 1, 1], [1, 0, 1]])
    if datatype == "BYTES":
        return np.array([["", "a", "größer"], ["b\0c", "d", "e"]], dtype=object)
    return values.astype(OIP_TO_NUMPY[datatype])


@pytest.mark.parametrize("datatype", OIP_TO_NUMPY)
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_goes_there_and_back(datatype: str, binary: bool) -> None:
    values = example(datatype)
    written, length = oip.write_response("m", "1", "id", [("x", values, binary)])
    head = json.loads(written[:length])
    assert (head["model_name"], head["model_version"], head["id"]) == ("m", "1", "id")
    output = head["outputs"][0]
    assert (output["datatype"], output["shape"]) == (datatype, [2, 3])
    assert (length is not None) == binary
    # What it writes it also reads: an output is an input of the same form.
    rest = b"" if length is None else written[length:]
    again = oip.read_request(*body(output, binary=rest))
    assert again.inputs["x"].dtype == values.dtype
    assert (again.inputs["x"] == values).all()


@pytest.mark.parametrize("datatype", NUMBERS)
def test_nested_and_flat_lists_are_the_same(datatype: str) -> None:
    values = example(datatype)
    for data in (values.tolist(), values.ravel().tolist()):
        read = oip.read_request(*body(tensor(data, datatype, (2, 3))))
        assert (read.inputs["x"] == values).all()
        assert read.inputs["x"].dtype == values.dtype


def test_bfloat16_is_widened_exactly() -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], dtype="<u2").tobytes()
    read = oip.read_request(*body(tensor(None, "BF16", (4,), parameters={"binary_data_size": 8}), binary=bits))
    assert read.inputs["x"].dtype == np.float32
    assert read.inputs["x"].tolist() == [1.0, -2.0, np.inf, 2.0**-133]
    assert oip.read_request(*body(tensor([1.5, 2], "BF16", (2,)))).inputs["x"].tolist() == [1.5, 2.0]


def test_several_binary_tensors_lie_one_after_the_other_between_json_ones() -> None:
    first, last = np.arange(3, dtype=np.int32), np.arange(2, dtype=np.float64)
    tensors = [
        {"name": "a", "datatype": "INT32", "shape": [3], "parameters": {"binary_data_size": 12}},
        {"name": "b", "datatype": "BYTES", "shape": [1], "data": ["text"]},
        {"name": "c", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}},
    ]
    read = oip.read_request(*body(*tensors, binary=first.tobytes() + last.tobytes()))
    assert (read.inputs["a"] == first).all() and (read.inputs["c"] == last).all()
    assert read.inputs["b"].tolist() == ["text"]


def header(*tensors: dict[str, Any], **more: Any) -> oip.Header:
    return oip.read_request(*body(*tensors, **more)).header


def test_what_is_wanted_of_the_outputs() -> None:
    values = tensor([1, 2, 3, 4])
    plain = header(values)
    assert (plain.id, plain.outputs, plain.how, plain.binary_default) == ("", (), (), False)
    assert header(values, parameters={"binary_data_output": True}).binary_default
    outputs = [{"name": "p", "parameters": {"binary_data": True}}, {"name": "q"}]
    assert header(values, outputs=outputs)[2:4] == (("p", "q"), (True, False))
    assert header(values, outputs=outputs, parameters={"binary_data_output": True}).how == (True, True)
    assert header(values, id="mine").id == "mine"


def test_outputs_as_classes_and_in_shared_memory() -> None:
    outputs = [
        {"name": "p", "parameters": {"classification": 3, "binary_data": True}},
        {"name": "q", "parameters": {"classification": 0}},
        {"name": "r", "parameters": {"shared_memory_region": "m", "shared_memory_byte_size": 8}},
    ]
    written = Regions(m=bytearray(64))
    read = oip.read_request(*body(tensor([1, 2, 3, 4]), outputs=outputs), written)
    assert read.header.how == (oip.Classes(3, True), False, Place("m", 0, 8))


def test_what_a_request_says_of_its_urgency() -> None:
    read = header(tensor([1, 2, 3, 4]), parameters={"priority": 3, "timeout": 1_500_000, "unknown": [1]})
    assert (read.priority, read.timeout_s) == (3, 1.5)
    assert header(tensor([1, 2, 3, 4]))[5:7] == (0, 0.0)


class Regions:
    """Shared memory that is none."""

    def __init__(self, **regions: bytearray) -> None:
        self.regions = regions

    def read(self, region: str, offset: int, byte_size: int) -> memoryview:
        if region not in self.regions or offset + byte_size > len(self.regions[region]):
            raise BadRequest(f"there is no such part of {region}")
        return memoryview(self.regions[region])[offset : offset + byte_size].toreadonly()

    def write(self, region: str, offset: int, byte_size: int, data: bytes) -> None:
        raise AssertionError("reading writes nothing")

    def check(self, regions: Any) -> None:
        raise AssertionError("who reads has not run yet")


def lent(region: str = "m", offset: int = 0, size: int = 16, **more: Any) -> dict[str, Any]:
    return {"shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": size, **more}


def test_inputs_in_shared_memory_are_not_copied() -> None:
    values = np.arange(16, dtype=np.float32)
    memory = Regions(m=bytearray(values.tobytes()))
    tensors = [tensor(parameters=lent(offset=16)), {"name": "y", "datatype": "INT8", "shape": [2], "data": [1, 2]}]
    read = oip.read_request(*body(*tensors), memory)
    assert read.inputs["x"].tolist() == [[4, 5], [6, 7]]
    memory.regions["m"][16:20] = np.float32(9).tobytes()
    assert read.inputs["x"][0, 0] == 9
    assert not read.inputs["x"].flags.writeable
    assert read.header.regions == ("m",)


def test_a_tensor_that_does_not_lie_at_its_own_boundary_is_copied_to_one() -> None:
    values = np.arange(8, dtype=np.float64)
    for shift in range(9):
        memory = Regions(m=bytearray(bytes(shift) + values.tobytes()))
        read = oip.read_request(*body(tensor(None, "FP64", [8], parameters=lent(offset=shift, size=64))), memory)
        assert read.inputs["x"].flags.aligned
        assert read.inputs["x"].tolist() == values.tolist()
    for spaces in range(9):
        tensors = [tensor(None, "FP64", [8], parameters={"binary_data_size": 64, "note": " " * spaces})]
        array = oip.read_request(*body(*tensors, binary=values.tobytes())).inputs["x"]
        assert array.flags.aligned and array.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("said", "parameters"),
    [
        ("no such part of m", lent(offset=50)),
        ("no such part of other", lent("other")),
        ("takes 16 bytes; there are 15", lent(size=15)),
        ("takes 16 bytes; there are 17", lent(size=17)),
        ("takes one of data", lent(binary_data_size=16)),
        ("has to be a name", lent(7)),
        ("has to be a name", lent(offset=-1)),
        ("has to be a name", lent(size="16")),
        ("has to be a name", {"shared_memory_region": "m"}),
        ("need a shared_memory_region", {"shared_memory_byte_size": 16}),
    ],
)
def test_shared_memory_that_is_named_wrongly(said: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=said):
        oip.read_request(*body(tensor(parameters=parameters)), Regions(m=bytearray(64)))


@pytest.mark.parametrize(
    "asked",
    [
        body(tensor(parameters=lent())),
        body(tensor([1, 2, 3, 4]), outputs=[{"name": "p", "parameters": lent()}]),
    ],
)
def test_shared_memory_needs_to_be_allowed(asked: tuple[bytes, int | None]) -> None:
    with pytest.raises(Forbidden, match="shared_memory"):
        oip.read_request(*asked)


def test_outputs_in_shared_memory_are_described_without_their_elements() -> None:
    values = np.arange(4, dtype=np.float32).reshape(2, 2)
    outputs = [
        ("p", values, Place('a "m"', 8, 16)),
        ("q", values, False),
        ("r", values, True),
        ("s", values, Place("m", 0, 16)),
    ]
    written, length = oip.write_response("m", "1", "", outputs)
    found = json.loads(written[:length])["outputs"]
    assert "data" not in found[0] and "data" in found[1]
    assert [output.get("parameters") for output in found] == [
        lent('a "m"', 8, 16),
        None,
        {"binary_data_size": 16},
        {"shared_memory_region": "m", "shared_memory_byte_size": 16},
    ]
    assert written[length:] == values.tobytes()
    assert oip.write_response("m", "1", "", outputs[:1])[1] is None


@pytest.mark.parametrize(
    ("datatype", "shape", "size", "found"),
    [
        ("FP32", (-1, 3), 24, (2, 3)),
        ("FP32", (-1, 3), 0, (0, 3)),
        ("FP32", (2, 3), 24, (2, 3)),
        ("INT8", (-1, 3, -1, 2), 12, (1, 3, 2, 2)),
        ("UINT16", (-1,), 6, (3,)),
        ("BYTES", (-1, 1), 5, (1, 1)),
        ("BYTES", (1,), 5, (1,)),
    ],
)
def test_the_shape_of_a_whole_body(datatype: str, shape: tuple[int, ...], size: int, found: tuple[int, ...]) -> None:
    assert tensors.from_body("x", datatype, shape, memoryview(b"a" * size)).shape == found


@pytest.mark.parametrize(
    ("datatype", "shape", "size", "said"),
    [
        ("FP32", (-1, 3), 23, "takes"),
        ("FP32", (2, 3), 20, "takes 24 bytes"),
        ("FP32", (3, -1, -1), 12, "does not follow"),
        ("FP32", (-1, 0), 12, "takes"),
        ("BYTES", (-1, 2), 5, "only one can be sent"),
    ],
)
def test_a_whole_body_that_does_not_fit(datatype: str, shape: tuple[int, ...], size: int, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        tensors.from_body("x", datatype, shape, memoryview(b"a" * size))


def test_what_was_read_before_is_not_mixed_up() -> None:
    """Headers are remembered: by their bytes, and without what follows them."""
    given = tensor(None, parameters={"binary_data_size": 16})
    first, second = np.arange(4, dtype=np.float32), np.arange(4, 8, dtype=np.float32)
    for values in (first, second, first):
        read = oip.read_request(*body(given, binary=values.tobytes()))
        assert read.inputs["x"].ravel().tolist() == values.tolist()
    with pytest.raises(BadRequest, match="15 bytes are left"):
        oip.read_request(*body(given, binary=first.tobytes()[:15]))
    with pytest.raises(BadRequest, match="1 bytes follow"):
        oip.read_request(*body(given, binary=first.tobytes() + b"x"))
    for number in range(3 * oip.MOST_HEADERS):
        read = oip.read_request(*body(given, binary=first.tobytes(), parameters={"note": number}))
        assert read.inputs["x"].ravel().tolist() == first.tolist()
    assert len(oip._headers) <= oip.MOST_HEADERS


def test_outputs_that_are_not_finite_are_null_in_json_and_themselves_in_binary() -> None:
    values = np.array([1.5, np.nan, np.inf], np.float32)
    written, _ = oip.write_response("m", "1", "", [("x", values, False)])
    assert json.loads(written)["outputs"][0]["data"] == [1.5, None, None]
    written, length = oip.write_response("m", "1", "", [("x", values, True)])
    assert written[length:] == values.tobytes()


def test_an_output_need_not_lie_in_one_piece_or_in_our_byte_order() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    for strange in (values.T, values[:, ::2], values.astype(">f4")):
        written, length = oip.write_response("m", "1", "", [("x", strange, True)])
        shape = json.loads(written[:length])["outputs"][0]["shape"]
        assert (np.frombuffer(written[length:], "<f4").reshape(shape) == strange).all()


def test_names_are_written_as_json() -> None:
    strange = 'a"\\\n\x00ü😀'
    written, _ = oip.write_response(strange, strange, strange, [(strange, np.zeros(1, np.int64), False)])
    head = json.loads(written)
    assert [head["model_name"], head["model_version"], head["id"], head["outputs"][0]["name"]] == [strange] * 4


BYTES_2 = b"\x01\0\0\0a" + b"\x02\0\0\0bc"
WRONG: list[tuple[str, tuple[bytes, int | None]]] = [
    ("not JSON", (b"{", None)),
    ("not JSON", (b"", None)),
    ("not JSON", (b"\xff\xfe", None)),
    ("not JSON", (b"[" * 100_000, None)),
    ("has to be a JSON object", (b"[]", None)),
    ("inputs has to be a list", (b"{}", None)),
    ("inputs has to be a list", (b'{"inputs": {}}', None)),
    ("inputs has to be a list", (b'{"inputs": [1]}', None)),
    ("outputs has to be a list", body(tensor([1, 2, 3, 4]), outputs=7)),
    ("name", body({"datatype": "FP32", "shape": [1], "data": [1]})),
    ("name", body(tensor([1, 2, 3, 4]), outputs=[{"parameters": {}}])),
    ("given twice", body(tensor([1, 2, 3, 4]), tensor([1, 2, 3, 4]))),
    ("id has to be", body(tensor([1, 2, 3, 4]), id=7)),
    ("id has to be", body(tensor([1, 2, 3, 4]), id="i" * 257)),
    ("parameters has to be", body(tensor([1, 2, 3, 4]), parameters=[])),
    ("datatype 'FP23'", body(tensor([1, 2, 3, 4], "FP23"))),
    ("datatype None", body({"name": "x", "shape": [1], "data": [1]})),
    ("shape has to be", body(tensor([1], shape=()) | {"shape": "1"})),
    ("shape has to be", body(tensor([1], shape=[1] * 17))),
    ("length in shape", body(tensor([1], shape=[-1]))),
    ("length in shape", body(tensor([1], shape=[1.0]))),
    ("length in shape", body(tensor([1], shape=[True]))),
    ("length in shape", body(tensor([1], shape=[10**30]))),
    ("takes 4 values; there are 3", body(tensor([1, 2, 3]))),
    ("takes 4 values; there are 5", body(tensor([1, 2, 3, 4, 5]))),
    ("takes 4 values; there are 0", body(tensor([]))),
    ("data has to be a list", body(tensor(7))),
    ("data has to be a list", body(tensor())),
    ("priority has to be", body(tensor([1, 2, 3, 4]), parameters={"priority": -1})),
    ("priority has to be", body(tensor([1, 2, 3, 4]), parameters={"priority": "high"})),
    ("timeout has to be", body(tensor([1, 2, 3, 4]), parameters={"timeout": 1.5})),
    ("timeout has to be", body(tensor([1, 2, 3, 4]), parameters={"timeout": 10**30})),
    (
        "classification has to be",
        body(tensor([1, 2, 3, 4]), outputs=[{"name": "p", "parameters": {"classification": True}}]),
    ),
    ("not both", body(tensor([1, 2, 3, 4]), outputs=[{"name": "p", "parameters": lent(classification=1)}])),
    ("not both", body(tensor([1, 2, 3, 4]), outputs=[{"name": "p", "parameters": lent(binary_data=True)}])),
    ("is reserved", body(tensor([1, 2, 3, 4]), parameters={"triton_final_response": True})),
    ("takes one of data", body(tensor([1, 2, 3, 4], parameters={"binary_data_size": 16}), binary=bytes(16))),
    ("nested", body(tensor([[1, 2], [3]]))),
    ("nested", body(tensor([[1, 2], 3, 4]))),
    ("nested", body(tensor([[1], [2], [3], [4]]))),
    ("nested", body(tensor([[[1, 2], [3, 4]]]))),
    ("nested", body(tensor([[], []]))),
    ("there is a str", body(tensor(["1", "2", "3", "4"]))),
    ("there is a NoneType", body(tensor([1, None, 3, 4]))),
    ("there is a dict", body(tensor([{}, 2, 3, 4]))),
    ("there is a bool", body(tensor([True, 2, 3, 4]))),
    ("there is a float", body(tensor([1.5, 2, 3, 4], "INT32"))),
    ("outside INT8", body(tensor([1, 2, 3, 128], "INT8"))),
    ("outside UINT64", body(tensor([1, 2, 3, -1], "UINT64"))),
    ("outside INT64", body(tensor([1, 2, 3, 2**63], "INT64"))),
    ("outside FP16", body(tensor([1, 2, 3, 1e9], "FP16"))),
    ("outside FP64", body(tensor([1, 2, 3, 10**400], "FP64"))),
    ("no text", body(tensor(["a", "b", "c", 4], "BYTES"))),
    ("takes 16 bytes; there are 15", body(tensor(None, parameters={"binary_data_size": 15}), binary=bytes(15))),
    ("takes 16 bytes; there are 0", body(tensor(None, parameters={"binary_data_size": 0}))),
    ("15 bytes are left", body(tensor(None, parameters={"binary_data_size": 16}), binary=bytes(15))),
    ("binary_data_size is -1", body(tensor(None, parameters={"binary_data_size": -1}), binary=bytes(16))),
    ("binary_data_size is '16'", body(tensor(None, parameters={"binary_data_size": "16"}), binary=bytes(16))),
    ("1 bytes follow", body(tensor(None, parameters={"binary_data_size": 16}), binary=bytes(17))),
    ("takes", body(tensor(None, "FP64", [1 << 30] * 4, parameters={"binary_data_size": 8}), binary=bytes(8))),
    ("lengths do not fit", body(tensor(None, "BYTES", [2], parameters={"binary_data_size": 7}), binary=BYTES_2[:7])),
    ("lengths do not fit", body(tensor(None, "BYTES", [2], parameters={"binary_data_size": 6}), binary=b"\xff" * 6)),
    ("lengths do not fit", body(tensor(None, "BYTES", [1], parameters={"binary_data_size": 11}), binary=BYTES_2)),
    ("takes 3 elements", body(tensor(None, "BYTES", [3], parameters={"binary_data_size": 11}), binary=BYTES_2)),
    ("not UTF-8", body(tensor(None, "BYTES", [1], parameters={"binary_data_size": 5}), binary=b"\x01\0\0\0\xff")),
    ("Inference-Header-Content-Length", (b"{}", 0)),
    ("Inference-Header-Content-Length", (b"{}", 3)),
]


@pytest.mark.parametrize(("said", "given"), WRONG, ids=range(len(WRONG)))
def test_every_mistake_is_named(said: str, given: tuple[bytes, int | None]) -> None:
    with pytest.raises(BadRequest, match=said):
        oip.read_request(*given)


def test_one_long_text_among_many_short_ones_costs_no_memory() -> None:
    # numpy alone would make 50,000 texts of 50,000 characters of it: 10 GB.
    with pytest.raises(BadRequest, match="there is a str"):
        oip.read_request(*body(tensor(["a" * 50_000, *[""] * 49_999], shape=[50_000])))


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELDS = {
    "name": JSONISH,
    "datatype": st.sampled_from(DATATYPES) | JSONISH,
    "shape": st.lists(st.integers(-2, 5), max_size=3) | JSONISH,
    "data": JSONISH,
    "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-3, 40) | JSONISH, max_size=1) | JSONISH,
}


@given(
    tensors=st.lists(st.fixed_dictionaries({}, optional=FIELDS), max_size=3),
    more=st.dictionaries(st.sampled_from(["id", "parameters", "outputs"]), JSONISH, max_size=3),
    binary=st.binary(max_size=40),
    shift=st.integers(-3, 3),
)
def test_nothing_that_is_nearly_a_request_breaks_the_reader(
    tensors: list[dict[str, Any]], more: dict[str, Any], binary: bytes, shift: int
) -> None:
    head = json.dumps({"inputs": tensors, **more}).encode()
    for length in (None, len(head) + shift):
        try:
            read = oip.read_request(head + binary, length)
        except BadRequest:
            continue
        assert all(isinstance(array, np.ndarray) for array in read.inputs.values())


@given(data=st.data(), datatype=st.sampled_from(NUMBERS))
def test_any_array_goes_there_and_back_in_binary(data: st.DataObject, datatype: str) -> None:
    dtype = WIRE[datatype]
    values = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)))
    written, length = oip.write_response("m", "1", "", [("x", values, True)])
    assert length is not None
    read = oip.read_request(*body(json.loads(written[:length])["outputs"][0], binary=written[length:]))
    assert read.inputs["x"].shape == values.shape
    assert read.inputs["x"].tobytes() == values.tobytes()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("rows", "said"), [((), None), ((0,), {"audit": True}), ((0, 17), {"audit": True, "audit_rows": "0,17"})]
)
def test_an_answer_says_that_its_label_is_asked_for(binary: bool, rows: tuple[int, ...], said: Any) -> None:
    written, length = oip.write_response("m", "1", "id", [("x", np.zeros(2, np.float32), binary)], of_answer(rows))
    head = json.loads(written[:length])
    assert head.get("parameters") == said
    assert (head["id"], head["outputs"][0]["name"]) == ("id", "x")
