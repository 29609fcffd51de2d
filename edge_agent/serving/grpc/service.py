"""What the agent answers over gRPC: each call of the protocol, translated for the data plane. It knows no grpcio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edge_agent.serving.calls import Answer
from edge_agent.serving.classification import classified
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.errors import BadRequest, Forbidden, NotFound, NotReady, ServingError
from edge_agent.serving.extensions import NO_REPOSITORY, Repository
from edge_agent.serving.grpc import codec
from edge_agent.serving.grpc import inference_pb2 as pb
from edge_agent.serving.parameters import NO_SHARED_MEMORY, Memory
from edgeloop import __version__
from edgeloop.package import OutputSpec, TensorSpec

Message = Any
Handler = Callable[[Any], Message]


class NotOffered(ServingError):
    """The protocol has it, and this agent has not."""


class SharedMemory(Memory, Protocol):
    """Regions that clients register."""

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map a part of a shared-memory object."""

    def unregister(self, name: str | None) -> None:
        """Forget a region, or all."""

    def status(self, name: str | None) -> list[dict[str, Any]]:
        """What is registered."""


class Service:
    """Maps calls to the data plane, the repository and shared memory."""

    def __init__(
        self,
        plane: DataPlane,
        repository: Repository | None,
        memory: SharedMemory | None,
        extensions: Sequence[str],
    ) -> None:
        """Switch on what is given.

        Args:
            plane: answers.
            repository: None: clients may not load and unload.
            memory: None: clients may not share memory.
            extensions: what the server's metadata says of them.
        """
        self._plane, self._repository, self._memory = plane, repository, memory
        self._extensions = tuple(extensions)
        #: Calls with one small request and one response: the request's message, and what answers it.
        self.handlers: Mapping[str, tuple[Any, Handler]] = {
            "ServerLive": (pb.ServerLiveRequest, lambda request: pb.ServerLiveResponse(live=True)),
            "ServerReady": (pb.ServerReadyRequest, lambda request: pb.ServerReadyResponse(ready=plane.ready())),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._model_statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._unload),
            "SystemSharedMemoryStatus": (pb.SystemSharedMemoryStatusRequest, self._memory_status),
            "SystemSharedMemoryRegister": (pb.SystemSharedMemoryRegisterRequest, self._memory_register),
            "SystemSharedMemoryUnregister": (pb.SystemSharedMemoryUnregisterRequest, self._memory_unregister),
            # Triton's example programs begin by forgetting all regions of both kinds, also where there is no GPU.
            "CudaSharedMemoryStatus": (
                pb.CudaSharedMemoryStatusRequest,
                lambda request: pb.CudaSharedMemoryStatusResponse(),
            ),
            "CudaSharedMemoryRegister": (pb.CudaSharedMemoryRegisterRequest, _no_cuda),
            "CudaSharedMemoryUnregister": (
                pb.CudaSharedMemoryUnregisterRequest,
                lambda request: pb.CudaSharedMemoryUnregisterResponse(),
            ),
        }

    def infer(self, message: bytes, patience_s: float, at_the_end: Callable[[Callable[[], object]], object]) -> Message:
        """Answer a ``ModelInferRequest``.

        Args:
            message: its bytes.
            patience_s: seconds that the client waits; 0: it does not say.
            at_the_end: takes what is to be done when the client has its answer, or is gone.

        Raises:
            ServingError: what the client gets instead.
            CancelledError: the client is gone.
        """
        read = codec.read_request(message, self._memory, patience_s)
        found = self._plane.infer(read.call)
        if not isinstance(found, Answer):
            at_the_end(found.cancel)
            found = found.result()
        return codec.write_response(read, classified(found, read.classes, self._plane.describe), self._memory)

    # ── metadata ──────────────────────────────────────────────────────────────────────────────

    def _model_ready(self, request: Any) -> Message:
        try:
            self._plane.describe(request.name, request.version or None)
        except (NotFound, NotReady):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    def _server_metadata(self, request: Any) -> Message:
        return pb.ServerMetadataResponse(name="edgeloop", version=__version__, extensions=self._extensions)

    def _model_metadata(self, request: Any) -> Message:
        found = self._plane.describe(request.name, request.version or None)
        return pb.ModelMetadataResponse(
            name=found.name,
            versions=found.versions,
            platform="onnxruntime_onnx",
            inputs=[_described(spec) for spec in found.inputs],
            outputs=[_described(spec) for spec in found.outputs],
        )

    def _model_config(self, request: Any) -> Message:
        # A message takes dictionaries for the messages in it, and refuses a name that it does not know.
        return pb.ModelConfigResponse(config=self._plane.configuration(request.name, request.version or None))

    def _model_statistics(self, request: Any) -> Message:
        found = self._plane.statistics(request.name or None, request.version or None)
        return pb.ModelStatisticsResponse(model_stats=found)

    # ── the model repository ──────────────────────────────────────────────────────────────────

    def _models(self, request: Any) -> Repository:
        if self._repository is None:
            raise Forbidden(NO_REPOSITORY)
        if request.repository_name:
            raise BadRequest("there is one repository, and it has no name; leave repository_name empty")
        return self._repository

    def _index(self, request: Any) -> Message:
        return pb.RepositoryIndexResponse(models=self._models(request).index(request.ready))

    def _load(self, request: Any) -> Message:
        models = self._models(request)
        if codec.plain(request.parameters):
            # Triton takes a configuration, and files of a model, in place of its own. A device runs what was audited.
            raise BadRequest("parameters cannot be given: a model is loaded as it was packaged")
        models.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    def _unload(self, request: Any) -> Message:
        self._models(request).unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    # ── shared memory ─────────────────────────────────────────────────────────────────────────

    def _shared(self) -> SharedMemory:
        if self._memory is None:
            raise Forbidden(NO_SHARED_MEMORY)
        return self._memory

    def _memory_status(self, request: Any) -> Message:
        found = self._shared().status(request.name or None)
        return pb.SystemSharedMemoryStatusResponse(regions={region["name"]: region for region in found})

    def _memory_register(self, request: Any) -> Message:
        self._shared().register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def _memory_unregister(self, request: Any) -> Message:
        self._shared().unregister(request.name or None)
        return pb.SystemSharedMemoryUnregisterResponse()


def _described(spec: TensorSpec | OutputSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _no_cuda(request: Any) -> Message:
    raise NotOffered("memory of a GPU cannot be shared with this agent; register system shared memory")
