"""One question in every protocol that a target of the benchmarks speaks, and its answer read again."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

OUTPUT = "probabilities"


def http(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole request."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "\r\n"]).encode() + body


def binary(path: str, name: str, x: np.ndarray) -> bytes:
    """Open Inference Protocol with its binary tensor extension, for the answer as well."""
    return _oip_binary(path, {**_tensor(name, x), "parameters": {"binary_data_size": x.nbytes}}, x.tobytes())


def shared_memory(path: str, name: str, x: np.ndarray, region: str) -> bytes:
    """Open Inference Protocol; the tensor lies at the start of a region that the server knows by this name."""
    where = {"shared_memory_region": region, "shared_memory_offset": 0, "shared_memory_byte_size": x.nbytes}
    return _oip_binary(path, {**_tensor(name, x), "parameters": where}, b"")


def oip_base64(path: str, name: str, x: np.ndarray) -> bytes:
    """Open Inference Protocol in JSON; the tensor's bytes as base64, which MLServer decodes by its content type."""
    text = {
        "name": name,
        "datatype": "BYTES",
        "shape": [1],
        "data": [_text(x)],
        "parameters": {"content_type": "base64"},
    }
    return http(path, _json({"inputs": [text]}), {"Content-Type": "application/json"})


def json_base64(path: str, name: str, x: np.ndarray) -> bytes:
    """An object with the tensor's bytes as base64."""
    return http(path, _json({"x": _text(x)}), {"Content-Type": "application/json"})


Encoder = Callable[[str, str, np.ndarray], bytes]
#: Protocol, as a peer names it → a request from a path, the input's name and a tensor.
PROTOCOLS: Mapping[str, Encoder] = {"oip-binary": binary, "oip-base64": oip_base64, "json-base64": json_base64}


def probabilities(head: bytes, body: bytes) -> np.ndarray:
    """The probabilities of an answer in any of these protocols, flat."""
    marker = b"inference-header-content-length: "
    lines = [line for line in head.lower().split(b"\r\n") if line.startswith(marker)]
    split = int(lines[0][len(marker) :]) if lines else len(body)
    found = json.loads(body[:split])
    if OUTPUT in found:
        return np.array(found[OUTPUT], np.float32)
    (output,) = (output for output in found["outputs"] if output["name"] == OUTPUT)
    return np.array(output["data"], np.float32) if "data" in output else np.frombuffer(body[split:], np.float32)


def _oip_binary(path: str, tensor: Mapping[str, Any], data: bytes) -> bytes:
    wanted = {"name": OUTPUT, "parameters": {"binary_data": True}}
    head = _json({"inputs": [tensor], "outputs": [wanted]})
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return http(path, head + data, headers)


def _tensor(name: str, x: np.ndarray) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": list(x.shape)}


def _text(x: np.ndarray) -> str:
    return base64.b64encode(x.tobytes()).decode()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
