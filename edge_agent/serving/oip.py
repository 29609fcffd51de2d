"""The Open Inference Protocol's bytes (V2, with the binary tensor extension): pure translation, no I/O.

https://github.com/open-inference/open-inference-protocol, and the binary tensor data extension of Triton's
protocol documents. Everything comes from outside: each announced size is checked against the bytes that are there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.serving.errors import BadRequest
from edgeloop.runtime.datatypes import OIP_TO_NUMPY, oip_name

Array = npt.NDArray[Any]

#: `json.dumps` with arguments would make a new encoder for each answer.
_encode = json.JSONEncoder(separators=(",", ":")).encode

MAX_DIMENSIONS = 16
MAX_ID = 256


@dataclass(frozen=True)
class WantedOutput:
    """An output that the client asks for, and whether it wants it as binary."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A request, read.

    Attributes:
        id: the client's, or "".
        inputs: by name; shapes and dtypes are the request's own.
        outputs: what is wanted, or None for the model's usual outputs.
        binary: whether outputs that are not named are wanted as binary.
    """

    id: str
    inputs: dict[str, Array]
    outputs: tuple[WantedOutput, ...] | None
    binary: bool


def read_request(body: bytes, header_length: int | None) -> InferRequest:
    """Read an inference request.

    Args:
        body: the whole body.
        header_length: value of ``Inference-Header-Content-Length``, or None for a body of JSON alone.

    Raises:
        BadRequest: it is no such request; the message says where.
    """
    if header_length is not None and not 0 < header_length <= len(body):
        raise BadRequest(f"Inference-Header-Content-Length is {header_length}; the body has {len(body)} bytes")
    found = _object(body if header_length is None else body[:header_length])
    binary = memoryview(b"" if header_length is None else body)[header_length or 0 :]
    inputs: dict[str, Array] = {}
    offset = 0
    for tensor in _list(found, "inputs"):
        name = _text(tensor, "name")
        if name in inputs:
            raise BadRequest(f"input {name!r} is given twice")
        size = _parameters(tensor).get("binary_data_size")
        if size is None:
            inputs[name] = _from_json(name, tensor)
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - offset:
            raise BadRequest(
                f"input {name!r}: binary_data_size is {size!r}, and {len(binary) - offset} bytes are left in the body"
            )
        inputs[name] = _from_binary(name, tensor, binary[offset : offset + size])
        offset += size
    if offset != len(binary):
        raise BadRequest(f"{len(binary) - offset} bytes follow the last binary tensor; name them with binary_data_size")
    outputs = None
    default = _parameters(found).get("binary_data_output") is True
    if "outputs" in found:
        wanted = _list(found, "outputs")
        outputs = tuple(
            WantedOutput(_text(output, "name"), _parameters(output).get("binary_data", default) is True)
            for output in wanted
        )
    identity = found.get("id", "")
    if not isinstance(identity, str) or len(identity) > MAX_ID:
        raise BadRequest(f"id has to be a text of at most {MAX_ID} characters")
    return InferRequest(identity, inputs, outputs, default)


def write_response(
    model: str, version: str, identity: str, outputs: Sequence[tuple[str, Array, bool]]
) -> tuple[bytes, int | None]:
    """Write an inference response.

    Args:
        model: its name.
        version: its version.
        identity: the prediction's id.
        outputs: name, array, and whether it goes as binary.

    Returns:
        The body, and the length of its JSON part when binary tensors follow it, else None.
    """
    described: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for name, array, binary in outputs:
        tensor: dict[str, Any] = {"name": name, "datatype": oip_name(array.dtype), "shape": list(array.shape)}
        if binary:
            data = _to_binary(array)
            tensor["parameters"] = {"binary_data_size": len(data)}
            chunks.append(data)
        else:
            tensor["data"] = _to_json(array)
        described.append(tensor)
    answer = {"model_name": model, "model_version": version, "id": identity, "outputs": described}
    header = _encode(answer).encode()
    return (b"".join((header, *chunks)), len(header)) if chunks else (header, None)


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadRequest("the request has to be a JSON object with inputs")
    return found


def _list(parent: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = parent.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRequest(f"{key} has to be a list of objects")
    return value


def _text(parent: Mapping[str, Any], key: str) -> str:
    value = parent.get(key)
    if not isinstance(value, str):
        raise BadRequest(f"{key} of an input or output is missing, or no text")
    return value


def _parameters(parent: Mapping[str, Any]) -> Mapping[str, Any]:
    value = parent.get("parameters", {})
    if not isinstance(value, dict):
        raise BadRequest("parameters has to be an object")
    return value


def _type_and_shape(name: str, tensor: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if not isinstance(datatype, str) or datatype not in OIP_TO_NUMPY:
        raise BadRequest(f"input {name!r}: datatype {datatype!r} is not one of {', '.join(OIP_TO_NUMPY)}")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or not all(type(length) is int and 0 <= length < 1 << 31 for length in shape)
    ):
        raise BadRequest(f"input {name!r}: shape has to be a list of at most {MAX_DIMENSIONS} lengths")
    return datatype, tuple(shape)


def _from_binary(name: str, tensor: Mapping[str, Any], data: memoryview) -> Array:
    datatype, shape = _type_and_shape(name, tensor)
    if datatype == "BYTES":
        return _bytes_elements(name, data, shape)
    dtype = np.dtype(OIP_TO_NUMPY[datatype]).newbyteorder("<")
    # Python integers: a shape whose product overflows 64 bits is just a large number here.
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise BadRequest(f"input {name!r}: {datatype} {list(shape)} takes {expected} bytes; there are {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape)


def _bytes_elements(name: str, data: memoryview, shape: tuple[int, ...]) -> Array:
    """Each element is its length (4 bytes, little-endian) and its bytes."""
    elements: list[bytes] = []
    offset, count = 0, math.prod(shape)
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 4], "little")
        if offset + 4 + length > len(data) or len(elements) >= count:
            raise BadRequest(
                f"input {name!r}: the elements' lengths do not fit {len(data)} bytes and shape {list(shape)}"
            )
        elements.append(bytes(data[offset + 4 : offset + 4 + length]))
        offset += 4 + length
    if len(elements) != count:
        raise BadRequest(f"input {name!r}: shape {list(shape)} takes {count} elements; there are {len(elements)}")
    return _texts(name, elements).reshape(shape)


def _texts(name: str, elements: Sequence[object]) -> Array:
    array = np.empty(len(elements), dtype=np.object_)
    for i, element in enumerate(elements):
        try:
            array[i] = element.decode() if isinstance(element, bytes) else element
        except UnicodeDecodeError as error:
            raise BadRequest(f"input {name!r}: element {i} is not UTF-8, which ONNX strings are") from error
        if not isinstance(array[i], str):
            raise BadRequest(f"input {name!r}: element {i} is no text")
    return array


def _from_json(name: str, tensor: Mapping[str, Any]) -> Array:
    datatype, shape = _type_and_shape(name, tensor)
    data = tensor.get("data")
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r}: data has to be a list, flat or nested; or name binary_data_size")
    dtype = np.dtype(OIP_TO_NUMPY[datatype])
    if datatype == "BYTES":
        flat: list[object] = []
        _flatten(data, flat)
        array = _texts(name, flat)
    else:
        try:
            array = np.asarray(data)
            if array.dtype.kind not in "biuf" and array.size:
                raise ValueError("not numbers, or rows of different lengths")
            if dtype.kind != "f" and array.dtype.kind == "f" and array.size:
                raise ValueError(f"fractions given for {datatype}")
            if dtype.kind in "iu" and array.size and not _fits(array, dtype):
                raise ValueError(f"a number is outside {datatype}")
            array = array.astype(dtype)
        except (ValueError, OverflowError, TypeError) as error:
            raise BadRequest(f"input {name!r}: data is not {datatype}: {error}") from error
    if array.size != math.prod(shape):
        raise BadRequest(f"input {name!r}: shape {list(shape)} takes {math.prod(shape)} values; there are {array.size}")
    return array.reshape(shape)


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return int(array.min()) >= limits.min and int(array.max()) <= limits.max


def _flatten(data: list[Any], into: list[object]) -> None:
    for item in data:
        if isinstance(item, list):
            _flatten(item, into)
        else:
            into.append(item)


def _to_binary(array: Array) -> bytes:
    if array.dtype.kind in "OSU":
        encoded = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
        return b"".join(len(item).to_bytes(4, "little") + item for item in encoded)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def _to_json(array: Array) -> list[Any]:
    flat = array.ravel()
    if array.dtype.kind in "OSU":
        return [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in flat]
    if array.dtype.kind == "f" and not np.isfinite(flat).all():
        # JSON has no NaN; null is what most parsers take.
        return [value if math.isfinite(value) else None for value in flat.tolist()]
    return list(flat.tolist())
