"""The Open Inference Protocol's requests and responses (V2, with the binary tensor extension): pure translation.

https://github.com/open-inference/open-inference-protocol, and the binary tensor data extension of Triton's
protocol documents. Everything comes from outside: each announced size is checked against the bytes that are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii as quote
from typing import Any, NamedTuple

from edge_agent.serving import tensors
from edge_agent.serving.errors import BadRequest
from edge_agent.serving.tensors import Array

MAX_ID = 256


class InferRequest(NamedTuple):
    """A request, read.

    Attributes:
        id: the client's, or "".
        inputs: by name; shapes and dtypes are the request's own.
        outputs: names that are wanted, or () for the model's usual outputs.
        binary: for each of ``outputs``, whether it is wanted as binary.
        binary_default: whether outputs that are not named are wanted as binary.
    """

    id: str
    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    binary: tuple[bool, ...]
    binary_default: bool


def read_request(body: bytes, header_length: int | None) -> InferRequest:
    """Read an inference request.

    Args:
        body: the whole body.
        header_length: value of ``Inference-Header-Content-Length``, or None for a body of JSON alone.

    Raises:
        BadRequest: it is no such request; the message says where.
    """
    if header_length is None or header_length == len(body):
        found, rest = _object(body), memoryview(b"")
    elif 0 < header_length < len(body):
        found, rest = _object(body[:header_length]), memoryview(body)[header_length:]
    else:
        raise BadRequest(f"Inference-Header-Content-Length is {header_length}; the body has {len(body)} bytes")
    inputs = _inputs(found, rest)
    identity = found.get("id", "")
    if not isinstance(identity, str) or len(identity) > MAX_ID:
        raise BadRequest(f"id has to be a text of at most {MAX_ID} characters")
    default = _parameters(found).get("binary_data_output") is True
    wanted = _list(found, "outputs") if "outputs" in found else ()
    names = tuple([_text(output, "name") for output in wanted])
    as_binary = tuple([_parameters(output).get("binary_data", default) is True for output in wanted])
    return InferRequest(identity, inputs, names, as_binary, default)


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
    # Put together from pieces: a general encoder takes three times as long for these few fixed fields.
    described: list[str] = []
    chunks: list[bytes] = [b""]
    for name, array, as_binary in outputs:
        shape = ",".join(map(str, array.shape))
        if as_binary:
            data = tensors.binary(array)
            chunks.append(data)
            content = f'"parameters":{{"binary_data_size":{len(data)}}}'
        else:
            content = f'"data":{tensors.json_data(array)}'
        described.append(
            f'{{"name":{quote(name)},"datatype":"{tensors.datatype_of(array)}","shape":[{shape}],{content}}}'
        )
    header = (
        f'{{"model_name":{quote(model)},"model_version":{quote(version)},"id":{quote(identity)},'
        f'"outputs":[{",".join(described)}]}}'
    ).encode()
    if len(chunks) == 1:
        return header, None
    chunks[0] = header
    return b"".join(chunks), len(header)


def _inputs(found: Mapping[str, Any], rest: memoryview) -> dict[str, Array]:
    """Tensors by name; the binary ones lie one after the other in ``rest``, all of it."""
    inputs: dict[str, Array] = {}
    offset = 0
    for tensor in _list(found, "inputs"):
        name = _text(tensor, "name")
        if name in inputs:
            raise BadRequest(f"input {name!r} is given twice")
        datatype, shape = tensors.form(name, tensor.get("datatype"), tensor.get("shape"))
        size = _parameters(tensor).get("binary_data_size")
        if size is None:
            inputs[name] = tensors.from_json(name, datatype, shape, tensor.get("data"))
            continue
        if type(size) is not int or not 0 <= size <= len(rest) - offset:
            raise BadRequest(
                f"input {name!r}: binary_data_size is {size!r}, and {len(rest) - offset} bytes are left in the body"
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
        return {}
    if not isinstance(value, dict):
        raise BadRequest("parameters has to be an object")
    return value
