"""What the agent answers over HTTP: the Open Inference Protocol, feedback, status and metrics. Only translation."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from edge_agent.ports import FeedbackItem, Recorder
from edge_agent.serving import oip
from edge_agent.serving.dataplane import Answer, DataPlane
from edge_agent.serving.errors import BadRequest, ModelFailed, NotFound, NotReady, ServingError
from edge_agent.serving.http import Request, Response
from edgeloop import __version__

CODES: Mapping[type[ServingError], int] = {BadRequest: 400, NotFound: 404, NotReady: 503, ModelFailed: 500}
EXTENSIONS = ["binary_tensor_data"]
HEADER_LENGTH = "inference-header-content-length"
#: Labels that one request may bring.
MAX_FEEDBACK = 10_000


class Operations(Protocol):
    """What operators may ask of the agent, beside predictions."""

    def status(self) -> Mapping[str, Any]:
        """The status document."""

    def flush(self) -> None:
        """Close the open windows now."""

    def metrics(self) -> tuple[bytes, str]:
        """Prometheus' text and its content type."""


def error_body(text: str) -> bytes:
    """An error as the protocol has it."""
    return json.dumps({"error": text}).encode()


class Routes:
    """Maps requests to the data plane, the recorder and the operations."""

    def __init__(self, plane: DataPlane, recorder: Recorder | None, operations: Operations) -> None:
        self._plane, self._recorder, self._operations = plane, recorder, operations
        self._fixed: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("GET", "/v2"): self._server,
            ("GET", "/v2/health/live"): lambda request: Response(200, b"{}"),
            ("GET", "/v2/health/ready"): self._ready,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/edgeloop/v1/status"): lambda request: _json(self._operations.status()),
            ("POST", "/edgeloop/v1/flush"): self._flush,
            ("POST", "/edgeloop/v1/feedback"): self._feedback,
        }

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        """Answer a request."""
        try:
            path = request.path.rstrip("/") or "/"
            if path.startswith("/v2/models/"):
                return self._model(request, path.split("/")[3:])
            method = "GET" if request.method == "HEAD" else request.method
            if (handler := self._fixed.get((method, path))) is not None:
                return handler(request)
            if any(known == path for _, known in self._fixed):
                return Response(405, error_body(f"{request.method} is not for {path}"))
            raise NotFound(f"there is nothing at {path[:200]}; docs/reference/edge-agent.md lists what there is")
        except ServingError as error:
            return _failed(error)

    # ── the protocol ──────────────────────────────────────────────────────────────────────────

    def _server(self, request: Request) -> Response:
        return _json({"name": "edgeloop", "version": __version__, "extensions": EXTENSIONS})

    def _ready(self, request: Request) -> Response:
        if self._plane.loaded is None:
            raise NotReady("no release serves yet")
        return Response(200, b"{}")

    def _model(self, request: Request, parts: list[str]) -> Response | Awaitable[Response]:
        model, rest = parts[0], parts[1:]
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        match request.method, rest:
            case "POST", ["infer"]:
                return self._infer(request, model, version)
            case "GET" | "HEAD", []:
                return self._metadata(model, version)
            case "GET" | "HEAD", ["ready"]:
                self._plane.find(model, version)
                return Response(200, b"{}")
            case _:
                raise NotFound(f"there is no {request.method} {request.path[:200]}")

    def _metadata(self, model: str, version: str | None) -> Response:
        inputs, outputs = self._plane.find(model, version)
        loaded = self._plane.loaded
        return _json(
            {
                "name": model,
                "versions": [loaded.package.version if loaded is not None else ""],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in inputs],
                "outputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in outputs],
            }
        )

    def _infer(self, request: Request, model: str, version: str | None) -> Response | Awaitable[Response]:
        length = request.headers.get(HEADER_LENGTH)
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 16):
            raise BadRequest(f"Inference-Header-Content-Length has to be a number of bytes, not {length:.40}")
        read = oip.read_request(request.body, None if length is None else int(length))
        wanted = None if read.outputs is None else [output.name for output in read.outputs]
        answer = self._plane.infer(model, version, read.id, read.inputs, wanted)
        return _answer(read, answer) if isinstance(answer, Answer) else _later(read, answer)

    # ── edgeloop's own ────────────────────────────────────────────────────────────────────────

    def _feedback(self, request: Request) -> Response:
        if self._recorder is None:
            raise BadRequest("this agent does not observe (observe = false), so it keeps nothing to label")
        items = _feedback_items(request.body)
        result = self._recorder.feedback(items)
        body = {
            "accepted": result.accepted,
            "unknown": list(result.unknown),
            "duplicate": list(result.duplicate),
            "invalid": [{"id": identity, "reason": reason} for identity, reason in result.invalid],
        }
        return _json(body, 404 if len(items) == 1 and result.unknown else 200)

    def _flush(self, request: Request) -> Response:
        self._operations.flush()
        return Response(200, b"{}")

    def _metrics(self, request: Request) -> Response:
        body, content_type = self._operations.metrics()
        return Response(200, body, content_type)


def _answer(read: oip.InferRequest, answer: Answer) -> Response:
    named = {} if read.outputs is None else {output.name: output.binary for output in read.outputs}
    outputs = [(name, array, named.get(name, read.binary)) for name, array in answer.outputs.items()]
    body, length = oip.write_response(answer.model, answer.version, answer.id, outputs)
    if length is None:
        return Response(200, body)
    return Response(200, body, "application/octet-stream", ((HEADER_LENGTH, str(length)),))


async def _later(read: oip.InferRequest, answer: Awaitable[Answer]) -> Response:
    try:
        return _answer(read, await answer)
    except ServingError as error:
        return _failed(error)


def _failed(error: ServingError) -> Response:
    return Response(CODES[type(error)], error_body(str(error)))


def _json(body: Mapping[str, Any], status: int = 200) -> Response:
    return Response(status, json.dumps(body, separators=(",", ":")).encode())


def _feedback_items(body: bytes) -> list[FeedbackItem]:
    try:
        items = json.loads(body)["items"]
        if not isinstance(items, list) or not items:
            raise ValueError("items is an empty list, or none")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(f'feedback has to be {{"items": [{{"id": "…", "label": …}}]}}: {error}') from error
    if len(items) > MAX_FEEDBACK:
        raise BadRequest(f"{len(items)} labels; send at most {MAX_FEEDBACK} in one request")
    return [_feedback_item(position, item) for position, item in enumerate(items)]


def _feedback_item(position: int, item: object) -> FeedbackItem:
    if not isinstance(item, dict) or set(item) - {"id", "label", "index"}:
        raise BadRequest(f"items[{position}] has to be an object with id, label and, for a batch, index")
    identity, label, index = item.get("id"), item.get("label"), item.get("index", 0)
    if not isinstance(identity, str) or isinstance(label, bool) or not isinstance(label, int | str):
        raise BadRequest(f"items[{position}]: id has to be a text, and label a number or a name")
    if type(index) is not int or not 0 <= index < 1 << 31:
        raise BadRequest(f"items[{position}]: index has to be the row's number in its batch")
    return FeedbackItem(identity, label, index)
