"""The Open Inference Protocol's requests and responses (V2, with the binary tensor extension): pure translation.

https://github.com/open-inference/open-inference-protocol, and the binary tensor data extension of Triton's
protocol documents. Everything comes from outside: each announced size is checked against the bytes that are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from typing import Any, NamedTuple

import numpy as np

from edge_agent.serving import tensors
from edge_agent.serving.errors import BadRequest
from edge_agent.serving.parameters import (
    NO_PARAMETERS,
    OFFSET,
    REGION,
    SIZE,
    Memory,
    Place,
    classes,
    place,
    shared,
    urgency,
)
from edge_agent.serving.tensors import Array

MAX_ID = 256


class Classes(NamedTuple):
    """An output is wanted as its highest values, ``most`` of them (the classification extension)."""

    most: int
    binary: bool


#: How an output is wanted: as binary or not, as classes, or in shared memory.
How = bool | Classes | Place


class TensorForm(NamedTuple):
    """What a request's JSON says of one input: its form, and where its elements are.

    Attributes:
        name: of the input.
        datatype: the protocol's name.
        shape: lengths.
        where: bytes among those that follow the JSON part, or a place in shared memory, or None.
        data: elements as JSON has them, where ``where`` is None.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    where: int | Place | None
    data: object


class Header(NamedTuple):
    """The JSON part of a request, read.

    Attributes:
        id: the client's, or "".
        tensors: the inputs.
        outputs: names that are wanted, or () for the model's usual outputs.
        how: for each of ``outputs``, how it is wanted.
        binary_default: whether outputs that are not named are wanted as binary.
        priority: 1 is served before 2; 0: the default.
        timeout_s: seconds that the client waits; 0: it does not say.
        regions: of shared memory, that inputs lie in.
        plain: for each of ``outputs``, whether it is wanted as binary, if that is all there is to say of this request;
            None: it takes or wants shared memory, wants classes, or an output twice.
        parameters: of the request, as they came.
    """

    id: str = ""
    tensors: tuple[TensorForm, ...] = ()
    outputs: tuple[str, ...] = ()
    how: tuple[How, ...] = ()
    binary_default: bool = False
    priority: int = 0
    timeout_s: float = 0.0
    regions: tuple[str, ...] = ()
    plain: tuple[bool, ...] | None = None
    parameters: Mapping[str, Any] = NO_PARAMETERS


class InferRequest(NamedTuple):
    """A request, read: what its JSON says, and its inputs by name; shapes and dtypes are the request's own."""

    header: Header
    inputs: dict[str, Array]


#: Headers that were read before: a client's requests differ in what follows the JSON part, and reading that part again
#: would be a fifth of a small model's answer. Clients write them, so there must be an end to their number and length.
_headers: dict[bytes, Header] = {}
MOST_HEADERS, LONGEST_HEADER = 64, 2048


def read_request(body: bytes, header_length: int | None, memory: Memory | None = None) -> InferRequest:
    """Read an inference request.

    Args:
        body: the whole body.
        header_length: value of ``Inference-Header-Content-Length``, or None for a body of JSON alone.
        memory: that clients share; None: they may not.

    Raises:
        BadRequest: it is no such request; the message says where.
        Forbidden: it names shared memory, and clients may not share it.
    """
    if header_length is None or header_length == len(body):
        part, rest = body, memoryview(b"")
    elif 0 < header_length < len(body):
        part, rest = body[:header_length], memoryview(body)[header_length:]
    else:
        raise BadRequest(f"Inference-Header-Content-Length is {header_length}; the body has {len(body)} bytes")
    header = _headers.get(part) if len(part) <= LONGEST_HEADER else None
    if header is None:
        header = _remembered(part)
    for how in header.how:
        if isinstance(how, Place):
            shared(memory).read(*how)  # so that a run is not wasted
    return InferRequest(header, _inputs(header.tensors, rest, memory))


def read_header(data: bytes) -> Header:
    """Read the JSON part of a request; nothing is compared with what follows it.

    Raises:
        BadRequest: it is no such request; the message says where.
    """
    found = _object(data)
    identity = found.get("id", "")
    if not isinstance(identity, str) or len(identity) > MAX_ID:
        raise BadRequest(f"id has to be a text of at most {MAX_ID} characters")
    parameters = _parameters(found)
    if parameters and (reserved := [name for name in parameters if name.startswith("triton_")]):
        raise BadRequest(f"the parameter {reserved[0]:.60} is reserved; no server takes it in a request")
    default = parameters.get("binary_data_output") is True
    wanted = _list(found, "outputs") if "outputs" in found else ()
    names = tuple([_text(output, "name") for output in wanted])
    how = tuple([_how(_parameters(output), default) for output in wanted])
    forms = tuple([_form(tensor) for tensor in _list(found, "inputs")])
    priority, timeout_s = urgency(parameters)
    regions = tuple({form.where.region: None for form in forms if isinstance(form.where, Place)})
    binary = tuple([one for one in how if isinstance(one, bool)])
    plain = binary if len(set(names)) == len(binary) == len(how) and not regions else None
    return Header(identity, forms, names, how, default, priority, timeout_s, regions, plain, parameters)


def _remembered(part: bytes) -> Header:
    header = read_header(part)
    # An id makes every header another one; elements in it would be held.
    if len(part) <= LONGEST_HEADER and not header.id and all(form.data is None for form in header.tensors):
        if len(_headers) >= MOST_HEADERS:
            _headers.clear()
        _headers[part] = header
    return header


def write_response(
    model: str,
    version: str,
    identity: str,
    outputs: Sequence[tuple[str, Array, bool | Place]],
    parameters: Mapping[str, bool | str | float] = NO_PARAMETERS,
) -> tuple[bytes, int | None]:
    """Write an inference response.

    Args:
        model: its name.
        version: its version.
        identity: the prediction's id.
        outputs: name, array, and whether it goes as binary, or where in shared memory it was put.
        parameters: of the response.

    Returns:
        The body, and the length of its JSON part when binary tensors follow it, else None.
    """
    # Few answers have any; what those say stands where the others say nothing.
    said = f'{quote(identity)},"parameters":{json.dumps(dict(parameters))}' if parameters else quote(identity)
    if all(how is True for _, _, how in outputs):
        data = [tensors.binary(array) for _, array, _ in outputs]
        forms = tuple([(name, a.dtype, a.shape, len(d)) for (name, a, _), d in zip(outputs, data, strict=True)])
        before, after = _frame(model, version, forms)
        header = b"%b%b%b" % (before, said.encode(), after)
        return b"".join((header, *data)), len(header)
    # Put together from pieces: a general encoder takes three times as long for these few fixed fields.
    described: list[str] = []
    chunks: list[bytes] = []
    for name, array, how in outputs:
        if how is True:
            chunks.append(tensors.binary(array))
            content = _size(len(chunks[-1]))
        elif how:
            content = _put(how)
        else:
            content = f'"data":{tensors.json_data(array)}'
        described.append(_described(name, array.dtype, array.shape, content))
    header = (
        f'{{"model_name":{quote(model)},"model_version":{quote(version)},"id":{said},'
        f'"outputs":[{",".join(described)}]}}'
    ).encode()
    return b"".join((header, *chunks)), len(header) if chunks else None


@lru_cache(maxsize=256)
def _frame(
    model: str, version: str, forms: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]
) -> tuple[bytes, bytes]:
    """The JSON part of an answer with binary tensors alone, before and after its id: the same for many answers."""
    described = ",".join(_described(name, dtype, shape, _size(size)) for name, dtype, shape, size in forms)
    before = f'{{"model_name":{quote(model)},"model_version":{quote(version)},"id":'
    return before.encode(), f',"outputs":[{described}]}}'.encode()


def _described(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], content: str) -> str:
    lengths = ",".join(map(str, shape))
    return f'{{"name":{quote(name)},"datatype":"{tensors.datatype_of(dtype)}","shape":[{lengths}],{content}}}'


def _size(size: int) -> str:
    return f'"parameters":{{"binary_data_size":{size}}}'


def _put(where: Place) -> str:
    offset = f',"{OFFSET}":{where.offset}' if where.offset else ""
    return f'"parameters":{{"{REGION}":{quote(where.region)},"{SIZE}":{where.byte_size}{offset}}}'


def _how(parameters: Mapping[str, Any], default: bool) -> How:
    where, count = place(parameters), classes(parameters)
    if where is not None:
        if parameters.get("binary_data") is True:
            raise BadRequest("an output is wanted as binary data or in shared memory, not both")
        return where
    as_binary = parameters.get("binary_data", default) is True
    return Classes(count, as_binary) if count else as_binary


def _form(tensor: Mapping[str, Any]) -> TensorForm:
    name = _text(tensor, "name")
    datatype, shape = tensors.form(name, tensor.get("datatype"), tensor.get("shape"))
    parameters = _parameters(tensor)
    size, where, data = parameters.get("binary_data_size"), place(parameters), tensor.get("data")
    if (size is not None) + (where is not None) + (data is not None) > 1:
        raise BadRequest(f"input {name!r} takes one of data, binary_data_size and {REGION}")
    if size is not None and (type(size) is not int or size < 0):
        raise BadRequest(f"input {name!r}: binary_data_size is {size!r:.40}, no number of bytes")
    return TensorForm(name, datatype, shape, size if where is None else where, data)


def _inputs(forms: Sequence[TensorForm], rest: memoryview, memory: Memory | None) -> dict[str, Array]:
    """Tensors by name; the binary ones lie one after the other in ``rest``, all of it."""
    inputs: dict[str, Array] = {}
    offset = 0
    for name, datatype, shape, size, data in forms:
        if name in inputs:
            raise BadRequest(f"input {name!r} is given twice")
        if size is None:
            inputs[name] = tensors.from_json(name, datatype, shape, data)
            continue
        if isinstance(size, Place):
            inputs[name] = tensors.from_binary(name, datatype, shape, shared(memory).read(*size))
            continue
        if size > len(rest) - offset:
            raise BadRequest(
                f"input {name!r}: binary_data_size is {size}, and {len(rest) - offset} bytes are left in the body"
            )
        inputs[name] = tensors.from_binary(name, datatype, shape, rest[offset : offset + size])
        offset += size
    if offset != len(rest):
        raise BadRequest(f"{len(rest) - offset} bytes follow the last binary tensor; name them with binary_data_size")
    return inputs


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
    if not isinstance(value, list):
        raise BadRequest(f"{key} has to be a list of objects")
    for item in value:
        if not isinstance(item, dict):
            raise BadRequest(f"{key} has to be a list of objects")
    return value


def _text(parent: Mapping[str, Any], key: str) -> str:
    value = parent.get(key)
    if not isinstance(value, str):
        raise BadRequest(f"{key} of an input or output is missing, or no text")
    return value


def _parameters(parent: Mapping[str, Any]) -> Mapping[str, Any]:
    value = parent.get("parameters")
    if value is None:
        return NO_PARAMETERS
    if not isinstance(value, dict):
        raise BadRequest("parameters has to be an object")
    return value
