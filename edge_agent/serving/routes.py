"""What the agent answers over HTTP, by path: the Open Inference Protocol, feedback, status and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from edge_agent.operator_key import HEADER
from edge_agent.ports import Recorder
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.errors import BadRequest, NotFound, NotReady, ServingError
from edge_agent.serving.extensions import Extensions, Repository
from edge_agent.serving.feedback import give_feedback, kept_rows, open_audits
from edge_agent.serving.http_messages import Request, Response
from edge_agent.serving.inference import Inference
from edge_agent.serving.model_path import ModelPath, model_path
from edge_agent.serving.models import NOTHING_SERVES
from edge_agent.serving.responses import DONE, Answering, as_error, as_json, aside, error_body, read_object
from edgeloop import __version__

if TYPE_CHECKING:  # a device that shares no memory does not pay for it
    from edge_agent.serving.shared_memory import SharedMemory

#: What is always on; the protocol's names for it.
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)
_OPERATOR_KEY = HEADER.lower().encode()
#: What a prediction's id follows: what a teacher says of it, and who gave it.
ANSWERS, PREDICTIONS = "/edgeloop/v1/answers/", "/edgeloop/v1/predictions/"
#: Pixels of a picture that is decoded, where nobody says otherwise.
MAX_PICTURE_PIXELS = 25_000_000
#: Characters of the reason that a person gives for a rollback.
MAX_REASON = 500


class Operations(Protocol):
    """What operators may ask of the agent, beside predictions. These may take a while: they run in a thread."""

    def status(self) -> Mapping[str, Any]:
        """The status document."""

    def roll_back(self, reason: str, key: str) -> Mapping[str, Any]:
        """Leave the release that serves for the one before it; ``key`` is the operator's."""

    def answers(self, prediction_id: str) -> Mapping[str, Any]:
        """What the hub's teacher says of a request; raises `NotFound`."""

    def flush(self) -> None:
        """Close the open windows now."""

    def metrics(self) -> tuple[bytes, str]:
        """Prometheus' text and its content type."""


class Routes:
    """Maps requests to the data plane, the extensions, the recorder and the operations."""

    def __init__(
        self,
        plane: DataPlane,
        recorder: Recorder | None,
        operations: Operations,
        repository: Repository | None = None,
        memory: SharedMemory | None = None,
        max_picture_pixels: int = MAX_PICTURE_PIXELS,
    ) -> None:
        """Join them.

        Args:
            plane: answers inferences.
            recorder: takes feedback; None for an agent that does not observe.
            operations: for operators.
            repository: models that clients may load and unload; None where they may not.
            memory: regions that clients share with the agent; None where they may not.
            max_picture_pixels: of a picture that is decoded.
        """
        self._plane, self._recorder, self._operations = plane, recorder, operations
        self._extensions = Extensions(repository, memory)
        self._fixed: dict[tuple[str, str], Callable[[Request], Answering]] = {
            ("GET", "/v2"): self._server,
            ("GET", "/v2/health/live"): lambda request: DONE,
            ("GET", "/v2/health/ready"): self._ready,
            ("GET", "/metrics"): lambda request: aside(self._metrics),
            ("GET", "/edgeloop/v1/status"): lambda request: aside(lambda: as_json(self._operations.status())),
            ("POST", "/edgeloop/v1/flush"): lambda request: aside(self._flush),
            ("POST", "/edgeloop/v1/rollback"): lambda request: aside(lambda: self._roll_back(request)),
            ("POST", "/edgeloop/v1/feedback"): lambda request: aside(lambda: self._feedback(request.body)),
            ("GET", "/edgeloop/v1/audits"): lambda request: aside(self._audits),
        }
        self._of_models: dict[tuple[str, ...], tuple[str, Callable[[Request, ModelPath], Answering]]] = {
            ("infer",): ("POST", Inference(plane, memory, max_picture_pixels).answer),
            ("ready",): ("GET", self._model_ready),
            (): ("GET", self._metadata),
            ("config",): ("GET", lambda _, path: as_json(self._plane.configuration(path.model, path.version))),
            ("stats",): ("GET", lambda _, path: self._statistics(path.model, path.version)),
        }

    def __call__(self, request: Request) -> Answering:
        """Answer a request."""
        try:
            if request.path.startswith("/v2/models/"):
                return self._model(request, model_path(request.path))
            return self._other(request, request.path.rstrip("/") or "/")
        except ServingError as error:
            return as_error(error)

    def _model(self, request: Request, path: ModelPath) -> Answering:
        known = self._of_models.get(path.rest)
        if known is None:
            return self._other(request, request.path.rstrip("/"))
        expected, answer = known
        if request.method == expected or (request.method == "HEAD" and expected == "GET"):
            return answer(request, path)
        return Response(405, error_body(f"{request.method} is not for {request.path[:200]}; use {expected}"))

    def _other(self, request: Request, path: str) -> Answering:
        method = "GET" if request.method == "HEAD" else request.method
        if (handler := self._fixed.get((method, path))) is not None:
            return handler(request)
        if method == "GET" and path.startswith(ANSWERS):
            return as_json(self._operations.answers(unquote(path.removeprefix(ANSWERS))))
        if method == "GET" and path.startswith(PREDICTIONS):
            return aside(lambda: self._prediction(unquote(path.removeprefix(PREDICTIONS))))
        if expected := [verb for verb, known in self._fixed if known == path]:
            return Response(405, error_body(f"{request.method} is not for {path}; use {expected[0]}"))
        if path == "/v2/logging" or path.endswith("/trace/setting"):
            raise NotFound("there is no tracing, and the log is set by log_level and log_format in the settings")
        if path.startswith("/v2/"):
            return self._extensions(request, tuple([unquote(part) for part in path.split("/")[2:]]))
        raise NotFound(f"there is nothing at {path[:200]}; docs/reference/edge-agent.md lists what there is")

    # ── the protocol ──────────────────────────────────────────────────────────────────────────

    @property
    def extensions(self) -> tuple[str, ...]:
        """The protocol's names of the extensions that are on."""
        return (*EXTENSIONS, *self._extensions.names)

    def _server(self, request: Request) -> Response:
        return as_json({"name": "edgeloop", "version": __version__, "extensions": self.extensions})

    def _ready(self, request: Request) -> Response:
        if not self._plane.ready():
            raise NotReady(NOTHING_SERVES)
        return DONE

    def _model_ready(self, request: Request, path: ModelPath) -> Response:
        self._plane.describe(path.model, path.version)
        return DONE

    def _metadata(self, request: Request, path: ModelPath) -> Response:
        if path.model == "stats" and path.version is None:  # the protocol's address; a model may have that name
            return self._statistics(None, None)
        found = self._plane.describe(path.model, path.version)
        return as_json(
            {
                "name": found.name,
                "versions": list(found.versions),
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in found.inputs],
                "outputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in found.outputs],
            }
        )

    def _statistics(self, model: str | None, version: str | None) -> Response:
        return as_json({"model_stats": self._plane.statistics(model, version)})

    # ── edgeloop's own ────────────────────────────────────────────────────────────────────────

    def _feedback(self, body: bytes) -> Response:
        if self._recorder is None:
            raise BadRequest("this agent does not observe (observe = false), so it keeps nothing to label")
        return give_feedback(self._recorder, body)

    def _audits(self) -> Response:
        return as_json({"audits": [] if self._recorder is None else open_audits(self._recorder)})

    def _prediction(self, prediction_id: str) -> Response:
        return as_json({"id": prediction_id, "rows": kept_rows(self._recorder, prediction_id)})

    def _flush(self) -> Response:
        self._operations.flush()
        return DONE

    def _roll_back(self, request: Request) -> Response:
        reason = read_object(request.body).get("reason", "no reason given")
        if not isinstance(reason, str) or len(reason) > MAX_REASON:
            raise BadRequest(f"reason has to be a text of {MAX_REASON} characters at most")
        key = request.headers.get(_OPERATOR_KEY, b"").decode("latin-1")
        return as_json(self._operations.roll_back(reason, key))

    def _metrics(self) -> Response:
        body, content_type = self._operations.metrics()
        return Response(200, body, content_type)
