"""Tensors of the Open Inference Protocol: JSON data, flat or nested, and the binary extension's bytes. Pure.

Everything comes from outside: each announced length is compared with what is there before an array is made, and an
array's size never comes from a shape alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.serving.errors import BadRequest
from edgeloop.runtime.datatypes import OIP_TO_NUMPY, oip_name

Array = npt.NDArray[Any]

#: ONNX Runtime takes no bfloat16 from numpy; widening it to FP32 is exact (the upper half of the same bits).
BF16 = "BF16"
#: Datatype → how its elements lie in a request: always little-endian.
WIRE: Mapping[str, np.dtype[Any]] = {
    **{name: np.dtype(dtype).newbyteorder("<") for name, dtype in OIP_TO_NUMPY.items() if name != "BYTES"},
    BF16: np.dtype("<u2"),
}
DATATYPES = (*OIP_TO_NUMPY, BF16)
_NAMES: Mapping[np.dtype[Any], str] = {np.dtype(dtype): name for name, dtype in OIP_TO_NUMPY.items()}
#: Kind of a dtype → what its elements may be in JSON.
_ALLOWED: Mapping[str, set[type]] = {"b": {bool, int}, "i": {int}, "u": {int}, "f": {int, float}}
MAX_DIMENSIONS = 16
_LITTLE_ENDIAN = sys.byteorder == "little"
#: Without spaces: a fifth fewer bytes for lists of numbers.
encode_json = json.JSONEncoder(separators=(",", ":")).encode


def form(name: str, datatype: object, shape: object) -> tuple[str, tuple[int, ...]]:
    """A tensor's datatype and shape, as a request announces them.

    Raises:
        BadRequest: they are none.
    """
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise BadRequest(f"input {name!r}: datatype {datatype!r:.40} is not one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise BadRequest(f"input {name!r}: shape has to be a list of at most {MAX_DIMENSIONS} lengths")
    for length in shape:
        if type(length) is not int or not 0 <= length < 1 << 31:
            raise BadRequest(f"input {name!r}: a length in shape is {length!r:.40}, no number from 0 to 2^31")
    return datatype, tuple(shape)


def from_binary(name: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> Array:
    """The tensor whose elements are ``data``; a view of it where the bytes lie right.

    Raises:
        BadRequest: the bytes are not those of the datatype and shape.
    """
    dtype = WIRE.get(datatype)
    if dtype is None:
        return _texts(name, _elements(name, data, shape)).reshape(shape)
    # Python integers: a shape whose product overflows 64 bits is just a large number here.
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise BadRequest(f"input {name!r}: {datatype} {list(shape)} takes {expected} bytes; there are {len(data)}")
    array = np.frombuffer(data, dtype)
    if datatype == BF16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    elif not array.flags.aligned:
        # The header before it may have any length, and ONNX Runtime's kernels may take alignment for granted.
        array = np.array(array)
    return array.reshape(shape)


def from_body(name: str, datatype: str, shape: tuple[int, ...], body: memoryview) -> Array:
    """The tensor that is a whole body ("raw binary request"): its shape is the model's, with -1 for what may vary.

    One length may vary and follows from the size; of several the first, which is the batch's, is 1. Of BYTES there is
    one element, without its length before it.

    Raises:
        BadRequest: the shape does not follow from the size.
    """
    if shape.count(-1) > 1:
        shape = (1, *shape[1:]) if shape[0] == -1 else shape
    if shape.count(-1) > 1:
        raise BadRequest(f"the shape of input {name!r}, {list(shape)}, does not follow from a size; send it in JSON")
    known = math.prod(length for length in shape if length != -1)
    if datatype == "BYTES":
        if known != 1:
            raise BadRequest(f"input {name!r} takes {known} elements of BYTES; only one can be sent without a header")
        return _texts(name, [bytes(body)]).reshape([1] * len(shape))
    row = known * WIRE[datatype].itemsize
    varying = len(body) // row if row else 0
    return from_binary(name, datatype, tuple(varying if length == -1 else length for length in shape), body)


def from_json(name: str, datatype: str, shape: tuple[int, ...], data: object) -> Array:
    """The tensor whose elements are a list, flat or nested as its shape is.

    Raises:
        BadRequest: the values are not those of the datatype and shape.
    """
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r}: data has to be a list, flat or nested; or name binary_data_size")
    flat = _flatten(name, data, shape)
    if len(flat) != math.prod(shape):
        raise BadRequest(f"input {name!r}: shape {list(shape)} takes {math.prod(shape)} values; there are {len(flat)}")
    if datatype == "BYTES":
        return _texts(name, flat).reshape(shape)
    return _numbers(name, datatype, flat).reshape(shape)


def binary(array: Array) -> bytes:
    """An output's bytes for the binary extension."""
    if array.dtype.kind in "OSU":
        encoded = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
        return b"".join(chain.from_iterable((len(item).to_bytes(4, "little"), item) for item in encoded))
    if _LITTLE_ENDIAN and array.dtype.isnative:
        return array.tobytes()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def json_data(array: Array) -> str:
    """An output's elements as a flat JSON list."""
    flat = array.ravel()
    if array.dtype.kind in "OSU":
        return encode_json([item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in flat])
    values = flat.tolist()
    if array.dtype.kind == "f" and not np.isfinite(flat).all():
        # JSON has no NaN; null is what most parsers take.
        values = [value if math.isfinite(value) else None for value in values]
    return encode_json(values)


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of an output's dtype."""
    return _NAMES.get(dtype) or oip_name(dtype.newbyteorder("="))


def _flatten(name: str, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """The elements in row-major order. Level by level, so that no hostile nesting meets a recursion limit.

    The types are looked at before numpy sees the list: from one long text among many short ones it would make an array
    of as many long ones.
    """
    level, lengths = data, [len(data)]
    while level and list in (kinds := set(map(type, level))):
        rows = set(map(len, level)) if kinds == {list} else set()
        if len(rows) != 1 or len(lengths) >= len(shape):
            raise BadRequest(f"input {name!r}: data is not nested as its shape {list(shape)} is")
        lengths.extend(rows)
        level = list(chain.from_iterable(level))
    if len(lengths) > 1 and tuple(lengths) != shape:
        raise BadRequest(f"input {name!r}: data is nested as {lengths}; its shape is {list(shape)}")
    return level


def _numbers(name: str, datatype: str, flat: list[Any]) -> Array:
    target = np.dtype(np.float32) if datatype == BF16 else np.dtype(OIP_TO_NUMPY[datatype])
    strange = set(map(type, flat)) - _ALLOWED[target.kind]
    if strange:
        raise BadRequest(f"input {name!r}: data is not {datatype}: there is a {min(t.__name__ for t in strange)} in it")
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype=target)
    except (OverflowError, ValueError) as error:
        raise BadRequest(f"input {name!r}: a number is outside {datatype}") from error
    if target.kind == "f" and np.isinf(array).any() and not any(map(math.isinf, flat)):
        raise BadRequest(f"input {name!r}: a number is outside {datatype}")
    return array


def _elements(name: str, data: memoryview, shape: tuple[int, ...]) -> list[bytes]:
    """Elements of BYTES: each is its length (4 bytes, little-endian) and its bytes."""
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
    return elements


def _texts(name: str, elements: Sequence[object]) -> Array:
    array = np.empty(len(elements), dtype=np.object_)
    for i, element in enumerate(elements):
        try:
            text = element.decode() if isinstance(element, bytes) else element
        except UnicodeDecodeError as error:
            raise BadRequest(f"input {name!r}: element {i} is not UTF-8, which ONNX strings are") from error
        if not isinstance(text, str):
            raise BadRequest(f"input {name!r}: element {i} is no text")
        array[i] = text
    return array
