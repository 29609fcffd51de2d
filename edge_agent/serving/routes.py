"""What the agent answers over HTTP: the Open Inference Protocol, feedback, status and metrics. Only translation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from edge_agent.ports import FeedbackItem, Recorder
from edge_agent.serving import oip
from edge_agent.serving.calls import Answer, Call
from edge_agent.serving.dataplane import NOTHING_SERVES, DataPlane
from edge_agent.serving.errors import (
    BadRequest,
    Busy,
    DeadlinePassed,
    Forbidden,
    ModelFailed,
    NotFound,
    NotReady,
    ServingError,
)
from edge_agent.serving.http import Request, Response
from edge_agent.serving.repository import Repository
from edgeloop import __version__

CODES: Mapping[type[ServingError], int] = {
    BadRequest: 400,
    Forbidden: 403,
    NotFound: 404,
    Busy: 429,
    ModelFailed: 500,
    NotReady: 503,
    DeadlinePassed: 504,
}
EXTENSIONS = ["binary_tensor_data"]
HEADER_LENGTH = "Inference-Header-Content-Length"
_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
#: Labels that one request may bring.
MAX_FEEDBACK = 10_000

Answering = Response | Awaitable[Response]


class Operations(Protocol):
    """What operators may ask of the agent, beside predictions. These may take a while: they run in a thread."""

    def status(self) -> Mapping[str, Any]:
        """The status document."""

    def flush(self) -> None:
        """Close the open windows now."""

    def metrics(self) -> tuple[bytes, str]:
        """Prometheus' text and its content type."""


class ModelPath(NamedTuple):
    """A path below /v2/models/: model, version if it names one, and what follows."""

    model: str
    version: str | None
    rest: tuple[str, ...]


def error_body(text: str) -> bytes:
    """An error as the protocol has it."""
    return json.dumps({"error": text}).encode()


class Routes:
    """Maps requests to the data plane, the recorder and the operations."""

    def __init__(
        self, plane: DataPlane, recorder: Recorder | None, operations: Operations, repository: Repository
    ) -> None:
        self._plane, self._recorder, self._operations = plane, recorder, operations
        self._repository = repository
        self._fixed: dict[tuple[str, str], Callable[[Request], Answering]] = {
            ("GET", "/v2"): self._server,
            ("GET", "/v2/health/live"): lambda request: Response(200, b"{}"),
            ("GET", "/v2/health/ready"): self._ready,
            ("GET", "/metrics"): lambda request: _aside(self._metrics),
            ("GET", "/edgeloop/v1/status"): lambda request: _aside(lambda: _json(self._operations.status())),
            ("POST", "/edgeloop/v1/flush"): lambda request: _aside(self._flush),
            ("POST", "/edgeloop/v1/feedback"): lambda request: _aside(lambda: self._feedback(request.body)),
        }

    def __call__(self, request: Request) -> Answering:
        """Answer a request."""
        try:
            if request.path.startswith("/v2/models/"):
                return self._model(request, model_path(request.path))
            path = request.path.rstrip("/") or "/"
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
        if not self._plane.ready():
            raise NotReady(NOTHING_SERVES)
        return Response(200, b"{}")

    def _model(self, request: Request, path: ModelPath) -> Answering:
        match path.rest:
            case ("infer",):
                expected, answer = "POST", self._infer
            case ("ready",):
                expected, answer = "GET", self._model_ready
            case ():
                expected, answer = "GET", self._metadata
            case _:
                raise NotFound(f"there is nothing at {request.path[:200]}")
        if request.method != expected and not (request.method == "HEAD" and expected == "GET"):
            return Response(405, error_body(f"{request.method} is not for {request.path[:200]}; use {expected}"))
        return answer(request, path)

    def _model_ready(self, request: Request, path: ModelPath) -> Answering:
        self._plane.describe(path.model, path.version)
        return Response(200, b"{}")

    def _metadata(self, request: Request, path: ModelPath) -> Answering:
        found = self._plane.describe(path.model, path.version)
        return _json(
            {
                "name": found.name,
                "versions": list(found.versions),
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in found.inputs],
                "outputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in found.outputs],
            }
        )

    def _infer(self, request: Request, path: ModelPath) -> Answering:
        headers = request.headers
        length = headers.get(_HEADER_LENGTH)
        if length is not None and not (length.isdigit() and len(length) < 16):
            raise BadRequest(f"{HEADER_LENGTH} has to be a number of bytes, not {length.decode('latin-1'):.40}")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            return Response(415, error_body("send the body without Content-Encoding; compressed ones are not read"))
        read = oip.read_request(request.body, None if length is None else int(length))
        answer = self._plane.infer(Call(path.model, path.version, read.id, read.inputs, read.outputs))
        return _answer(read, answer) if isinstance(answer, Answer) else _later(read, answer)

    # ── edgeloop's own ────────────────────────────────────────────────────────────────────────

    def _feedback(self, body: bytes) -> Response:
        if self._recorder is None:
            raise BadRequest("this agent does not observe (observe = false), so it keeps nothing to label")
        items = _feedback_items(body)
        result = self._recorder.feedback(items)
        found = {
            "accepted": result.accepted,
            "unknown": list(result.unknown),
            "duplicate": list(result.duplicate),
            "invalid": [{"id": identity, "reason": reason} for identity, reason in result.invalid],
        }
        if len(items) == 1 and result.unknown:
            text = "no such prediction is kept: the id is wrong, or feedback_keep newer rows have come since"
            return _json({"error": text, **found}, 404)
        return _json(found)

    def _flush(self) -> Response:
        self._operations.flush()
        return Response(200, b"{}")

    def _metrics(self) -> Response:
        body, content_type = self._operations.metrics()
        return Response(200, body, content_type)


@lru_cache(maxsize=1024)
def model_path(path: str) -> ModelPath:
    """Take a path below /v2/models/ apart; ``/versions/{v}`` may follow the model's name."""
    model, *rest = [unquote(part) for part in path.rstrip("/").split("/")[3:]] or [""]
    if len(rest) >= 2 and rest[0] == "versions":
        return ModelPath(model, rest[1], tuple(rest[2:]))
    return ModelPath(model, None, tuple(rest))


def _answer(read: oip.InferRequest, answer: Answer) -> Response:
    named = dict(zip(read.outputs, read.binary, strict=True))
    default = read.binary_default
    outputs = [(name, array, named.get(name, default)) for name, array in answer.outputs]
    body, length = oip.write_response(answer.model, answer.version, answer.id, outputs)
    if length is None:
        return Response(200, body)
    return Response(200, body, "application/octet-stream", f"{HEADER_LENGTH}: {length}\r\n")


async def _later(read: oip.InferRequest, answer: Future[Answer]) -> Response:
    try:
        return _answer(read, await asyncio.wrap_future(answer))
    except ServingError as error:
        return _failed(error)


async def _aside(work: Callable[[], Response]) -> Response:
    """Run what may wait for a disk or a lock in a thread, so that predictions do not wait with it."""
    try:
        return await asyncio.get_running_loop().run_in_executor(None, work)
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
