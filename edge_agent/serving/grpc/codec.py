"""Inference requests and responses of the Open Inference Protocol over gRPC: pure translation.

https://github.com/open-inference/open-inference-protocol (inference_grpc.md), and the shared-memory extension of
Triton's protocol documents. What a tensor may be is decided in `edge_agent.serving.tensors`, for every door.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from google.protobuf.message import DecodeError

from edge_agent.serving import tensors
from edge_agent.serving.calls import Answer, Call
from edge_agent.serving.errors import BadRequest, Forbidden
from edge_agent.serving.grpc import inference_pb2 as pb
from edge_agent.serving.grpc.wire import split
from edge_agent.serving.oip import MAX_ID
from edge_agent.serving.tensors import Array
from edgeloop.runtime.datatypes import OIP_TO_NUMPY

#: Where a datatype's elements lie in ``InferTensorContents``. FP16 and BF16 have no place there.
CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
#: The numbers of each field of ``InferTensorContents``.
_NUMBERS: Mapping[str, type[np.generic]] = {
    "bool_contents": np.bool_,
    "int_contents": np.int32,
    "int64_contents": np.int64,
    "uint_contents": np.uint32,
    "uint64_contents": np.uint64,
    "fp32_contents": np.float32,
    "fp64_contents": np.float64,
}
NO_SHARED_MEMORY = "clients may not share memory with this agent; the setting shared_memory allows it"
REGION, SIZE, OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"


class Memory(Protocol):
    """Regions of shared memory; each of these raises BadRequest."""

    def read(self, region: str, offset: int, byte_size: int) -> memoryview:
        """Bytes where they lie."""

    def write(self, region: str, offset: int, byte_size: int, data: bytes) -> None:
        """Write to a part that is set aside."""

    def check(self, regions: set[str]) -> None:
        """Say whether what was read was there all the while."""


class Place(NamedTuple):
    """A part of a region of shared memory: where a tensor lies, or is wanted."""

    region: str
    offset: int
    byte_size: int


class Read(NamedTuple):
    """A request, read.

    Attributes:
        call: what the data plane is asked.
        places: outputs that are wanted in shared memory, by name.
        lent: regions that inputs lie in.
        typed: the inputs came as typed contents, so the outputs go as such.
    """

    call: Call
    places: Mapping[str, Place]
    lent: set[str]
    typed: bool


def read_request(message: bytes, memory: Memory | None, patience_s: float) -> Read:
    """Read a ``ModelInferRequest``.

    Args:
        message: its bytes.
        memory: where shared tensors lie; None: clients may not share memory.
        patience_s: seconds that the client waits, as the call says; 0: it does not say.

    Raises:
        BadRequest: it is no such request; the message says where.
        Forbidden: it names shared memory, and clients may not share it.
    """
    rest, raw = split(message)
    try:
        request = pb.ModelInferRequest.FromString(rest)
    except DecodeError as error:
        raise BadRequest("the message is no ModelInferRequest") from error
    if len(request.id) > MAX_ID:
        raise BadRequest(f"id has to be a text of at most {MAX_ID} characters")
    inputs: dict[str, Array] = {}
    lent: set[str] = set()
    typed = False
    following = iter(raw)
    for tensor in request.inputs:
        name = tensor.name
        if name in inputs:
            raise BadRequest(f"input {name!r} is given twice")
        datatype, shape = tensors.form(name, tensor.datatype, list(tensor.shape[: tensors.MAX_DIMENSIONS + 1]))
        place = _place(tensor.parameters) if tensor.parameters else None
        if tensor.HasField("contents"):
            if raw or place is not None:
                raise BadRequest(f"input {name!r} has contents; with raw_input_contents or shared memory it has none")
            inputs[name] = _from_contents(name, datatype, shape, tensor.contents)
            typed = True
        elif place is not None:
            data = _shared(memory).read(*place)
            inputs[name] = tensors.from_binary(name, datatype, shape, data)
            lent.add(place.region)
        else:
            if (part := next(following, None)) is None:
                raise BadRequest(f"input {name!r} has neither contents nor its part of raw_input_contents")
            inputs[name] = tensors.from_binary(name, datatype, shape, part)
    if next(following, None) is not None:
        raise BadRequest(f"there are {len(raw)} raw_input_contents, and fewer inputs whose tensors they could be")
    names, places = _outputs(request.outputs)
    if places:
        _shared(memory)
    priority, timeout_s = _urgency(request.parameters, patience_s)
    version = request.model_version or None
    call = Call(request.model_name, version, request.id, inputs, names, priority, timeout_s, bool(lent))
    return Read(call, places, lent, typed)


def write_response(read: Read, answer: Answer, memory: Memory | None) -> Any:
    """The ``ModelInferResponse`` to a request; outputs that are wanted in shared memory are written there.

    Raises:
        BadRequest: an output has no room in its place.
    """
    if read.lent:
        _shared(memory).check(read.lent)
    response = pb.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=answer.id)
    # Typed or raw, all of them: the protocol forbids a mixture.
    typed = read.typed and all(tensors.datatype_of(array) in CONTENTS for _, array in answer.outputs)
    for name, array in answer.outputs:
        datatype = tensors.datatype_of(array)
        output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        place = read.places.get(name)
        if place is not None:
            data = tensors.binary(array)
            _shared(memory).write(*place, data)
            output.parameters[REGION].string_param = place.region
            output.parameters[SIZE].int64_param = len(data)
            if place.offset:
                output.parameters[OFFSET].int64_param = place.offset
            if not typed:  # clients find raw contents by the output's position
                response.raw_output_contents.append(b"")
        elif typed:
            getattr(output.contents, CONTENTS[datatype]).extend(_elements(array))
        else:
            response.raw_output_contents.append(tensors.binary(array))
    return response


def plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as Python's values; one that has none is left out."""
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in parameters.items())
    return {name: getattr(value, kind) for name, value, kind in chosen if kind is not None}


def _from_contents(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> Array:
    field = CONTENTS.get(datatype)
    if field is None:
        raise BadRequest(f"input {name!r}: {datatype} has no typed contents; send it in raw_input_contents")
    if strange := [found.name for found, _ in contents.ListFields() if found.name != field]:
        raise BadRequest(f"input {name!r}: the elements of {datatype} belong in {field}, not in {strange[0]}")
    elements = getattr(contents, field)
    if datatype == "BYTES":
        return tensors.from_json(name, datatype, shape, list(elements))
    # Without a Python object for each element: those of 16 MiB would take a gigabyte.
    values = np.fromiter(elements, _NUMBERS[field], len(elements))
    if len(values) != math.prod(shape):
        raise BadRequest(
            f"input {name!r}: shape {list(shape)} takes {math.prod(shape)} values; there are {len(values)}"
        )
    dtype = np.dtype(OIP_TO_NUMPY[datatype])
    if dtype.itemsize < values.itemsize:
        limits = np.iinfo(dtype)
        if ((values < limits.min) | (values > limits.max)).any():
            raise BadRequest(f"input {name!r}: a number is outside {datatype}")
    return values.astype(dtype, copy=False).reshape(shape)


def _elements(array: Array) -> list[Any]:
    if array.dtype.kind in "OSU":
        return [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
    return array.ravel().tolist()


def _outputs(requested: Any) -> tuple[tuple[str, ...], dict[str, Place]]:
    places = {}
    for output in requested:
        if not output.parameters:
            continue
        parameters = plain(output.parameters)
        if parameters.get("classification"):
            raise BadRequest("classification is not offered over gRPC; take the output and sort it")
        if (place := _place(output.parameters)) is not None:
            places[output.name] = place
    return tuple([output.name for output in requested]), places


def _place(parameters: Mapping[str, Any]) -> Place | None:
    found = plain(parameters)
    region = found.get(REGION)
    if region is None:
        return None
    size, offset = found.get(SIZE), found.get(OFFSET, 0)
    if not isinstance(region, str) or type(size) is not int or type(offset) is not int or size < 0 or offset < 0:
        raise BadRequest(f"{REGION} has to be a name, and {SIZE} and {OFFSET} numbers of bytes")
    return Place(region, offset, size)


def _shared(memory: Memory | None) -> Memory:
    if memory is None:
        raise Forbidden(NO_SHARED_MEMORY)
    return memory


def _urgency(parameters: Mapping[str, Any], patience_s: float) -> tuple[int, float]:
    """Priority, and the seconds that the client waits: its call's, or the request's own if that is less."""
    if not parameters:
        return 0, patience_s
    found = plain(parameters)
    priority, timeout_us = found.get("priority", 0), found.get("timeout", 0)
    for name, value in (("priority", priority), ("timeout", timeout_us)):
        if type(value) is not int or value < 0:
            raise BadRequest(f"the parameter {name} has to be a whole number from 0, not {value!r:.40}")
    own_s = timeout_us / 1e6
    return priority, min(own_s or patience_s, patience_s or own_s)
