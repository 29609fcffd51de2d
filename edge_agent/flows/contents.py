"""Bytes that somebody sent, as tensors: a request of the Open Inference Protocol, other JSON, raw bytes, numpy's files.

All of it comes from outside: what is announced is held to what is there before an array is made.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from edge_agent.flow_settings import TensorSettings
from edge_agent.flows.ports import Array, Reading, Rejected
from edge_agent.serving import oip, tensors
from edge_agent.serving.calls import Described
from edge_agent.serving.errors import BadRequest, Forbidden
from edgeloop.package import TensorSpec
from edgeloop.runtime.datatypes import numpy_dtype

MAX_ARRAYS = 64
_MAX_NPY_HEADER = 4096
#: How numpy packs; others (bzip2, LZMA) are more code in front of hostile bytes, for nothing.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: What zipfile raises on bytes that are no archive, or a damaged or an encrypted one.
_NO_ARCHIVE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, zlib.error)

Reader = Callable[[bytes, Described], Reading]
"""Makes a payload into tensors for a model; raises `Rejected`."""


def spec_of(described: Described, name: str | None) -> TensorSpec:
    """The input that the settings name, or the first.

    Raises:
        Rejected: the model has no such input.
    """
    if name is None:
        return described.inputs[0]
    for spec in described.inputs:
        if spec.name == name:
            return spec
    there = ", ".join(spec.name for spec in described.inputs)
    raise Rejected(f"{described.name} has no input {name}; it has {there}")


def read_oip(data: bytes, described: Described) -> Reading:
    """An inference request as HTTP would bring it, JSON alone."""
    try:
        request = oip.read_request(data, None)
        request.header.id.encode()
    except (BadRequest, Forbidden, UnicodeEncodeError) as error:  # JSON can name half a character: no text holds it
        raise Rejected(str(error)) from error
    header = request.header
    return Reading(request.inputs, header.outputs, header.id, parameters=header.parameters)


class JsonReader:
    """A number, a list, or an object out of which ``fields`` picks the rows of inputs."""

    def __init__(self, input_name: str | None, fields: Mapping[str, tuple[str, ...]] | None) -> None:
        self._input, self._fields = input_name, fields

    def __call__(self, data: bytes, described: Described) -> Reading:
        """Make the payload one row, or as many as its nesting has."""
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Rejected(f"it is not JSON: {error}") from error
        if not self._fields:
            spec = spec_of(described, self._input)
            return Reading({spec.name: from_data(spec, found)})
        inputs = {}
        for name, places in self._fields.items():
            inputs[name] = row(spec_of(described, name), [_at(found, place) for place in places])
        return Reading(inputs)


class RawReader:
    """The bytes of one tensor, little-endian, of a declared datatype and shape."""

    def __init__(self, input_name: str | None, tensor: TensorSettings) -> None:
        self._input, self._tensor = input_name, tensor

    def __call__(self, data: bytes, described: Described) -> Reading:
        """Look at the bytes as the tensor; nothing is copied."""
        datatype, shape = self._tensor.datatype, self._tensor.shape
        if shape and shape[0] == -1:
            rest = math.prod(shape[1:]) * tensors.WIRE[datatype].itemsize
            shape = (max(len(data) // rest, 1), *shape[1:])
        name = spec_of(described, self._input).name
        try:
            return Reading({name: tensors.from_binary(name, datatype, shape, memoryview(data))}, declared=True)
        except BadRequest as error:
            raise Rejected(str(error)) from error


class NpyReader:
    """One array in numpy's own format; objects, which could run code, are refused."""

    def __init__(self, input_name: str | None, max_bytes: int) -> None:
        self._input, self._max_bytes = input_name, max_bytes

    def __call__(self, data: bytes, described: Described) -> Reading:
        """The array, as it is or as one row of it."""
        spec = spec_of(described, self._input)
        return Reading({spec.name: _as_rows(spec, _npy(data, self._max_bytes))})


class NpzReader:
    """Arrays by input, zipped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def __call__(self, data: bytes, described: Described) -> Reading:
        """The arrays, together no larger than the bound when they are unpacked."""
        inputs, left = {}, self._max_bytes
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = archive.infolist()
                if not 0 < len(members) <= MAX_ARRAYS:
                    raise Rejected(f"it holds {len(members)} arrays; 1 to {MAX_ARRAYS} are taken")
                for member in members:
                    if member.compress_type not in _PACKED:
                        raise Rejected(f"{member.filename!r:.100} is packed in a way that numpy does not use")
                    with archive.open(member) as file:
                        # Not the announced size: the bytes that really come out are counted.
                        unpacked = file.read(left + 1)
                    left -= len(unpacked)
                    if left < 0:
                        raise Rejected(f"unpacked it is larger than max_bytes ({self._max_bytes} bytes)")
                    spec = spec_of(described, member.filename.removesuffix(".npy"))
                    inputs[spec.name] = _as_rows(spec, _npy(unpacked, self._max_bytes))
        except _NO_ARCHIVE as error:
            raise Rejected(f"it is no .npz file: {error}") from error
        return Reading(inputs)


def from_data(spec: TensorSpec, data: object) -> Array:
    """A number or a list as the input: shaped as it is nested, as one row of that, or as the input's own shape.

    Raises:
        Rejected: it does not fit, or its values are not of the input's datatype.
    """
    nested = _nesting(data)
    fixed = tuple(1 if length == -1 else length for length in spec.shape)
    wrapped = data if isinstance(data, list) else [data]
    try:
        if nested and _matches(nested, spec.shape):
            return tensors.from_json(spec.name, spec.datatype, nested, wrapped)
        if _matches((1, *nested), spec.shape):
            return tensors.from_json(spec.name, spec.datatype, (1, *nested), [data])
        return tensors.from_json(spec.name, spec.datatype, fixed, wrapped)
    except BadRequest as error:
        raise Rejected(str(error)) from error


def row(spec: TensorSpec, values: list[object]) -> Array:
    """Values from several places as one row of an input; one place may hold the whole row.

    Raises:
        Rejected: they do not fit.
    """
    return from_data(spec, values[0] if len(values) == 1 and isinstance(values[0], list) else values)


def _npy(data: bytes, max_bytes: int) -> Array:
    """An array; its bytes are all of the file's, so a header cannot announce more than there is."""
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file, max_header_size=_MAX_NPY_HEADER)
        if dtype.hasobject or dtype.kind not in "biufSU":
            raise Rejected(f"its elements are {dtype}; numbers and texts are taken")
        start = file.tell()
        size = dtype.itemsize
        for length in shape:
            size *= length
        if len(shape) > tensors.MAX_DIMENSIONS or size != len(data) - start or size > max_bytes:
            raise Rejected(f"its header announces {list(shape)} of {dtype}; {len(data) - start} bytes follow")
        array = np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    except Rejected:
        raise
    except Exception as error:
        # Its header is Python's text, so that also what tokenizers and parsers raise comes out.
        raise Rejected(f"it is no .npy file: {error}") from error
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("="), copy=False))


def _as_rows(spec: TensorSpec, array: Array) -> Array:
    if array.dtype.kind in "SU":
        array = array.astype(np.str_).astype(np.object_)
    if not _matches(array.shape, spec.shape) and _matches((1, *array.shape), spec.shape):
        array = array[np.newaxis]
    wanted = numpy_dtype(spec.datatype)
    # numpy writes float64 and int64 unless it is told otherwise; narrowing those is what their writer would have done.
    if array.dtype != wanted and array.dtype.kind == wanted.kind and array.dtype.itemsize > wanted.itemsize:
        with np.errstate(over="ignore"):
            narrow = array.astype(wanted)
        if wanted.kind == "f" or np.array_equal(narrow, array):
            return narrow
    return array


def _at(found: object, place: str) -> object:
    for key in place.split("."):
        if not isinstance(found, dict) or key not in found:
            raise Rejected(f"there is no {place!r} in it")
        found = found[key]
    return found


def _nesting(data: object) -> tuple[int, ...]:
    lengths: list[int] = []
    while isinstance(data, list) and len(lengths) <= tensors.MAX_DIMENSIONS:
        lengths.append(len(data))
        data = data[0] if data else None
    return tuple(lengths)


def _matches(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (-1, got) for want, got in zip(wanted, shape, strict=True))
