"""Inference over HTTP: a request's body, whichever of its forms it has, and the answer in the form that it asks for."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from edge_agent.serving import oip, tensors
from edge_agent.serving.calls import Answer, Call, Described
from edge_agent.serving.classification import classified
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.errors import BadRequest, ServingError
from edge_agent.serving.http_messages import Request, Response
from edge_agent.serving.model_path import ModelPath
from edge_agent.serving.parameters import Memory, Place, shared
from edge_agent.serving.plain_bodies import PLAIN, in_plain_sight, plain, read_picture, read_text
from edge_agent.serving.responses import Answering, as_error
from edge_agent.serving.tensors import Array
from edgeloop.package import TensorSpec

if TYPE_CHECKING:  # only an agent that is sent pictures pays for it
    from concurrent.futures import ThreadPoolExecutor

HEADER_LENGTH = "Inference-Header-Content-Length"
_HEADER_LENGTH = HEADER_LENGTH.lower().encode()


class Inference:
    """Translates for the data plane."""

    def __init__(self, plane: DataPlane, memory: Memory | None, max_picture_pixels: int) -> None:
        """Join them; arguments as those of `edge_agent.serving.routes.Routes`."""
        self._plane, self._memory, self._max_picture_pixels = plane, memory, max_picture_pixels

    def answer(self, request: Request, path: ModelPath) -> Answering:
        """Answer a request.

        Raises:
            ServingError: the door says which code that is.
        """
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
