"""Inference requests and responses of the Open Inference Protocol over gRPC: pure translation.

https://github.com/open-inference/open-inference-protocol (inference_grpc.md), and the shared-memory extension of
Triton's protocol documents. What a tensor may be is decided in `edge_agent.serving.tensors`, for every door.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from edge_agent.serving import tensors
from edge_agent.serving.calls import Answer, Call
from edge_agent.serving.errors import BadRequest
from edge_agent.serving.grpc import inference_pb2 as pb
from edge_agent.serving.grpc.wire import split
from edge_agent.serving.oip import MAX_ID
from edge_agent.serving.parameters import (
    NO_PARAMETERS,
    OFFSET,
    REGION,
    SIZE,
    Memory,
    Place,
    classes,
    shared,
    urgency,
)
from edge_agent.serving.parameters import place as place_of
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


class Read(NamedTuple):
    """A request, read.

    Attributes:
        call: what the data plane is asked.
        places: outputs that are wanted in shared memory, by name.
        classes: outputs that are wanted as a classification, by name, and how many classes.
        lent: regions that inputs lie in.
        typed: the inputs came as typed contents, so the outputs go as such.
    """

    call: Call
    places: Mapping[str, Place]
    classes: Mapping[str, int]
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
        place = place_of(plain(tensor.parameters)) if tensor.parameters else None
        if tensor.HasField("contents"):
            if raw or place is not None:
                raise BadRequest(f"input {name!r} has contents; with raw_input_contents or shared memory it has none")
            inputs[name] = _from_contents(name, datatype, shape, tensor.contents)
            typed = True
        elif place is not None:
            data = shared(memory).read(*place)
            inputs[name] = tensors.from_binary(name, datatype, shape, data)
            lent.add(place.region)
        else:
            if (part := next(following, None)) is None:
                raise BadRequest(f"input {name!r} has neither contents nor its part of raw_input_contents")
            inputs[name] = tensors.from_binary(name, datatype, shape, part)
    if next(following, None) is not None:
        raise BadRequest(f"there are {len(raw)} raw_input_contents, and fewer inputs whose tensors they could be")
    names, places, wanted = _outputs(request.outputs)
    if places:
        shared(memory)
    parameters = plain(request.parameters) if request.parameters else NO_PARAMETERS
    priority, timeout_s = _urgency(parameters, patience_s)
    version = request.model_version or None
    call = Call(request.model_name, version, request.id, inputs, names, priority, timeout_s, bool(lent), parameters)
    return Read(call, places, wanted, lent, typed)


def write_response(read: Read, answer: Answer, memory: Memory | None) -> Any:
    """The ``ModelInferResponse`` to a request; outputs that are wanted in shared memory are written there.

    Raises:
        BadRequest: an output has no room in its place.
    """
    if read.lent:
        shared(memory).check(read.lent)
    response = pb.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=answer.id)
    for name, value in answer.parameters.items():
        parameter = response.parameters[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        else:
            parameter.string_param = value
    # Typed or raw, all of them: the protocol forbids a mixture.
    typed = read.typed and all(tensors.datatype_of(array.dtype) in CONTENTS for _, array in answer.outputs)
    for name, array in answer.outputs:
        datatype = tensors.datatype_of(array.dtype)
        output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        place = read.places.get(name)
        if place is not None:
            data = tensors.binary(array)
            shared(memory).write(*place, data)
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


def _outputs(requested: Any) -> tuple[tuple[str, ...], dict[str, Place], dict[str, int]]:
    """Names of outputs, and those that are wanted in shared memory or as a classification."""
    places, wanted = {}, {}
    for output in requested:
        if not output.parameters:
            continue
        parameters = plain(output.parameters)
        if count := classes(parameters):
            wanted[output.name] = count
        if (place := place_of(parameters)) is not None:
            places[output.name] = place
    return tuple([output.name for output in requested]), places, wanted


def _urgency(parameters: Mapping[str, Any], patience_s: float) -> tuple[int, float]:
    """Priority, and the seconds that the client waits: its call's, or the request's own if that is less."""
    if not parameters:
        return 0, patience_s
    priority, own_s = urgency(parameters)
    return priority, min(own_s or patience_s, patience_s or own_s)
