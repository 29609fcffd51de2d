"""The protocol's extensions that change the server: the model repository, and shared memory. Only translation.

https://github.com/triton-inference-server/server/tree/main/docs/protocol: extension_model_repository.md and
extension_shared_memory.md. Each is off unless the settings allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from edge_agent.serving.errors import BadRequest, Forbidden, NotFound
from edge_agent.serving.http_messages import Request, Response
from edge_agent.serving.parameters import NO_SHARED_MEMORY
from edge_agent.serving.responses import DONE, Answering, as_json, aside, error_body, read_object

if TYPE_CHECKING:  # a device that shares no memory does not pay for it
    from edge_agent.serving.shared_memory import SharedMemory

NO_REPOSITORY = "clients may not load and unload models here; the setting repository_api allows it"


class Repository(Protocol):
    """Models that may be loaded and unloaded; every call may take a while."""

    def index(self, ready_only: bool = False) -> list[dict[str, str]]:
        """Name, version, state and reason of each."""

    def load(self, name: str) -> None:
        """Load it, or load it again."""

    def unload(self, name: str) -> None:
        """Serve it no more."""


class Extensions:
    """Answers what lies below /v2/repository, /v2/systemsharedmemory and /v2/cudasharedmemory."""

    def __init__(self, repository: Repository | None, memory: SharedMemory | None) -> None:
        """Switch on what is given; None leaves an extension off."""
        self._repository, self._memory = repository, memory
        # By first and last part of the path; each gets the name between them, if there is one, and the body.
        self._handlers: Mapping[tuple[str, str], Callable[[str | None, bytes], Answering]] = {
            ("repository", "index"): lambda name, body: aside(lambda: self._index(body)),
            ("repository", "load"): lambda name, body: aside(lambda: self._load(_named(name), body)),
            ("repository", "unload"): lambda name, body: aside(lambda: self._unload(_named(name))),
            ("systemsharedmemory", "status"): lambda name, body: as_json(self._shared().status(name)),
            ("systemsharedmemory", "register"): lambda name, body: self._register(_named(name), body),
            ("systemsharedmemory", "unregister"): lambda name, body: self._unregister(name),
            # Triton's example programs begin by forgetting all regions of both kinds, also where there is no GPU.
            ("cudasharedmemory", "status"): lambda name, body: as_json([]),
            ("cudasharedmemory", "unregister"): lambda name, body: DONE,
            ("cudasharedmemory", "register"): _no_cuda,
        }

    @property
    def names(self) -> tuple[str, ...]:
        """What the server's metadata says of them."""
        return (
            *(() if self._repository is None else ("model_repository",)),
            *(() if self._memory is None else ("system_shared_memory",)),
        )

    def __call__(self, request: Request, parts: tuple[str, ...]) -> Answering:
        """Answer a request.

        Args:
            request: it.
            parts: of its path below /v2/, decoded.

        Raises:
            ServingError: the door says which code that is.
        """
        name: str | None
        match parts:
            case ("repository", "models", name, "load" | "unload"):
                handler = self._handlers.get((parts[0], parts[-1]))
            case ("systemsharedmemory" | "cudasharedmemory", "region", name, verb):
                handler = self._handlers.get((parts[0], verb))
            case (root, verb):
                name, handler = None, self._handlers.get((root, verb))
            case _:
                name, handler = None, None
        if handler is None:
            raise NotFound(
                f"there is nothing at {request.path[:200]}; docs/reference/edge-agent.md lists what there is"
            )
        expected = "GET" if parts[-1] == "status" else "POST"
        if request.method != expected:
            return Response(405, error_body(f"{request.method} is not for {request.path[:200]}; use {expected}"))
        return handler(name, request.body)

    # ── the model repository ──────────────────────────────────────────────────────────────────

    def _models(self) -> Repository:
        if self._repository is None:
            raise Forbidden(NO_REPOSITORY)
        return self._repository

    def _index(self, body: bytes) -> Response:
        models, ready = self._models(), read_object(body).get("ready", False)
        if not isinstance(ready, bool):
            raise BadRequest("ready has to be true or false")
        return as_json(models.index(ready))

    def _load(self, name: str, body: bytes) -> Response:
        models, parameters = self._models(), read_object(body).get("parameters") or {}
        if parameters:
            # Triton takes a configuration, and files of a model, in place of its own. A device runs what was audited.
            raise BadRequest("parameters cannot be given: a model is loaded as it was packaged")
        models.load(name)
        return DONE

    def _unload(self, name: str) -> Response:
        self._models().unload(name)
        return DONE

    # ── shared memory ─────────────────────────────────────────────────────────────────────────

    def _shared(self) -> SharedMemory:
        if self._memory is None:
            raise Forbidden(NO_SHARED_MEMORY)
        return self._memory

    def _register(self, name: str, body: bytes) -> Response:
        memory, region = self._shared(), read_object(body)
        key, offset, size = region.get("key"), region.get("offset", 0), region.get("byte_size")
        if not isinstance(key, str) or type(offset) is not int or type(size) is not int:
            raise BadRequest('a region takes {"key": "/name", "byte_size": …} and, if it begins later, "offset"')
        memory.register(name, key, offset, size)
        return DONE

    def _unregister(self, name: str | None) -> Response:
        self._shared().unregister(name)
        return DONE


def _named(name: str | None) -> str:
    if name is None:
        raise BadRequest("the path has to name the model or the region")
    return name


def _no_cuda(name: str | None, body: bytes) -> Response:
    raise BadRequest("CUDA shared memory is not supported; share system memory, or send tensors in the request")
