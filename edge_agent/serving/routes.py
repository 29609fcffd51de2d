"""What the agent answers over HTTP: the Open Inference Protocol, feedback, status and metrics. Only translation."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import unquote

from edge_agent.operator_key import HEADER
from edge_agent.ports import Recorder
from edge_agent.serving import oip, tensors
from edge_agent.serving.calls import Answer, Call, Described
from edge_agent.serving.classification import classified
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.errors import BadRequest, NotFound, NotReady, ServingError
from edge_agent.serving.extensions import Extensions, Repository
from edge_agent.serving.feedback import give_feedback, kept_rows, open_audits
from edge_agent.serving.http_messages import Request, Response
from edge_agent.serving.models import NOTHING_SERVES
from edge_agent.serving.parameters import Place, shared
from edge_agent.serving.plain_bodies import PLAIN, in_plain_sight, plain, read_picture, read_text
from edge_agent.serving.responses import DONE, Answering, as_error, as_json, aside, error_body, read_object
from edge_agent.serving.tensors import Array
from edgeloop import __version__
from edgeloop.package import TensorSpec

if TYPE_CHECKING:  # a device that shares no memory does not pay for it
    from concurrent.futures import ThreadPoolExecutor

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
HEADER_LENGTH = "Inference-Header-Content-Length"
_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
_OPERATOR_KEY = HEADER.lower().encode()
#: What a prediction's id follows: what a teacher says of it, and who gave it.
ANSWERS, PREDICTIONS = "/edgeloop/v1/answers/", "/edgeloop/v1/predictions/"
#: Pixels of a picture that is decoded, where nobody says otherwise.
MAX_PICTURE_PIXELS = 25_000_000
#: Characters of a path below /v2/models/: what was read of 1,024 of them is remembered, and clients write them.
LONGEST_PATH = 4096
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


class ModelPath(NamedTuple):
    """A path below /v2/models/: model, version if it names one, and what follows."""

    model: str
    version: str | None
    rest: tuple[str, ...]


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
        self._max_picture_pixels = max_picture_pixels
        self._plane, self._recorder, self._operations, self._memory = plane, recorder, operations, memory
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
            ("infer",): ("POST", self._infer),
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

    def _infer(self, request: Request, path: ModelPath) -> Answering:
        length = request.headers.get(_HEADER_LENGTH)
        if length is None and (content := request.headers.get(b"content-type")) is not None:
            content = content.lower()
            if content.startswith(PLAIN) and (answering := self._plain(content, request, path)) is not None:
                return answering
        if length == b"0":
            read = self._whole_body(request, path)
        elif length is None or (length.isdigit() and len(length) < 16):
            read = oip.read_request(request.body, None if length is None else int(length), self._memory)
        else:
            raise BadRequest(f"{HEADER_LENGTH} has to be a number of bytes, not {length.decode('latin-1'):.40}")
        header = read.header
        answer = self._plane.infer(
            Call(
                path.model,
                path.version,
                header.id,
                read.inputs,
                header.outputs,
                header.priority,
                header.timeout_s,
                bool(header.regions),
                header.parameters,
            )
        )
        return self._answer(header, answer) if isinstance(answer, Answer) else self._later(header, answer)

    def _plain(self, content_type: bytes, request: Request, path: ModelPath) -> Answering | None:
        """A body that is a picture, a text or a tensor; None: it is JSON after all."""
        model = self._plane.describe(path.model, path.version)
        found = plain(content_type, request.body, model)
        if found is None:
            return None
        spec = found.spec
        if found.kind == "picture":
            return self._picture(request.body, spec, model, path)
        if found.kind == "text":
            array = read_text(request.body, spec)
        else:
            array = tensors.from_body(spec.name, spec.datatype, tuple(spec.shape), memoryview(request.body))
        answer = self._plane.infer(Call(path.model, path.version, "", {spec.name: array}))
        return self._shown(answer, model) if isinstance(answer, Answer) else self._shown_later(answer, model)

    @functools.cached_property
    def _decoder(self) -> ThreadPoolExecutor:
        """One picture after the other: while it is decoded, one of 25 million pixels takes 200 MB."""
        from concurrent.futures import ThreadPoolExecutor  # only an agent that is sent pictures pays for it

        return ThreadPoolExecutor(1, "pictures")

    async def _picture(self, body: bytes, spec: TensorSpec, model: Described, path: ModelPath) -> Response:
        """Decoded in a thread of its own: predictions do not wait for it."""
        work = functools.partial(read_picture, body, spec, model, self._max_picture_pixels)
        try:
            pixels = await asyncio.get_running_loop().run_in_executor(self._decoder, work)
            answer = self._plane.infer(Call(path.model, path.version, "", {spec.name: pixels}))
        except ServingError as error:
            return as_error(error)
        return self._shown(answer, model) if isinstance(answer, Answer) else await self._shown_later(answer, model)

    def _shown(self, answer: Answer, model: Described) -> Response:
        """An answer in JSON, with the name of the best class and its probability in plain sight."""
        outputs = [(name, array, False) for name, array in answer.outputs]
        said = {**answer.parameters, **in_plain_sight(answer, model)}
        return Response(200, oip.write_response(answer.model, answer.version, answer.id, outputs, said)[0])

    async def _shown_later(self, answer: Future[Answer], model: Described) -> Response:
        try:
            return self._shown(await asyncio.wrap_future(answer), model)
        except ServingError as error:
            return as_error(error)

    def _whole_body(self, request: Request, path: ModelPath) -> oip.InferRequest:
        """A body without JSON is the model's only input, and its answer is binary ("raw binary request")."""
        model = self._plane.describe(path.model, path.version)
        if len(model.inputs) != 1:
            raise BadRequest(
                f"{model.name} takes {len(model.inputs)} inputs; only a single one can be sent without JSON"
            )
        (spec,) = model.inputs
        tensor = tensors.from_body(spec.name, spec.datatype, tuple(spec.shape), memoryview(request.body))
        return oip.InferRequest(oip.Header(binary_default=True), {spec.name: tensor})

    def _answer(self, header: oip.Header, answer: Answer) -> Response:
        if header.plain is not None:
            hows = header.plain or itertools.repeat(header.binary_default)
            return self._written(answer, [(name, array, how) for (name, array), how in zip(answer.outputs, hows)])  # noqa: B905 - an endless default
        if header.regions:
            shared(self._memory).check(header.regions)
        named = dict(zip(header.outputs, header.how, strict=True))
        wanted = {name: how.most for name, how in named.items() if isinstance(how, oip.Classes)}
        default = header.binary_default
        outputs = [
            self._put(name, array, named.get(name, default))
            for name, array in classified(answer, wanted, self._plane.describe).outputs
        ]
        return self._written(answer, outputs)

    def _written(self, answer: Answer, outputs: Sequence[tuple[str, Array, bool | Place]]) -> Response:
        body, length = oip.write_response(answer.model, answer.version, answer.id, outputs, answer.parameters)
        if length is None:
            return Response(200, body)
        return Response(200, body, "application/octet-stream", f"{HEADER_LENGTH}: {length}\r\n")

    def _put(self, name: str, array: Array, how: oip.How) -> tuple[str, Array, bool | Place]:
        """An output and how it goes; one that is wanted in shared memory is put there."""
        if isinstance(how, Place):
            data = tensors.binary(array)
            shared(self._memory).write(*how, data)
            return name, array, how._replace(byte_size=len(data))
        return name, array, how if isinstance(how, bool) else how.binary

    async def _later(self, header: oip.Header, answer: Future[Answer]) -> Response:
        try:
            return self._answer(header, await asyncio.wrap_future(answer))
        except ServingError as error:
            return as_error(error)

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


@lru_cache(maxsize=1024)
def model_path(path: str) -> ModelPath:
    """Take a path below /v2/models/ apart; ``/versions/{v}`` may follow the model's name.

    Raises:
        NotFound: it is longer than any that there is; that is not remembered.
    """
    if len(path) > LONGEST_PATH:
        raise NotFound(f"there is nothing at {path[:200]}…: a path has {LONGEST_PATH} characters at most")
    model, *rest = [unquote(part) for part in path.rstrip("/").split("/")[3:]] or [""]
    if len(rest) >= 2 and rest[0] == "versions":
        return ModelPath(model, rest[1], tuple(rest[2:]))
    return ModelPath(model, None, tuple(rest))
