"""``/api/v1/escalations``: inputs that a device is not sure of, and what became of them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from cloud_hub.api.device_messages import CBOR, OCTETS, in_openapi, own
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.errors import BadRequest, Forbidden
from cloud_hub.escalations.office import Then
from edgeloop.protocol import Answers, Escalation, TeacherAnswer

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class EscalationAnswer(BaseModel):
    """An escalation, and what became of it."""

    number: int = Field(examples=[17])
    device: str = Field(examples=["camera-1"])
    prediction: str = Field(description="Id of the prediction.", examples=["4f1c-17"])
    row: int = Field(description="In its request.", examples=[0])
    channel: str = Field(examples=["stable"])
    release: str = Field(description="Digest of the release that answered.", examples=[_DIGEST])
    segment: str
    form: str = Field(description="What travelled: input, small or features.", examples=["input"])
    probability: float = Field(description="Chance with which it was drawn; its inverse is the label's weight.")
    audit: bool = Field(description="Whether it was drawn for an audit, however sure the answer was.")
    wait: bool = Field(description="Whether a client waited.")
    hardness: float | None = Field(description="As the device saw it when it drew, in 0…1, where it tells.")
    predicted: int = Field(description="Class that the device answered.")
    confidence: float = Field(description="Of that answer.")
    bytes: int = Field(description="Of the message.")
    received: float = Field(description="Unix seconds.")
    state: str = Field(description="answered; unanswered; asked: a person was asked.", examples=["answered"])
    answered: float | None = Field(description="Unix seconds.")
    label: int | None = Field(description="Class that the teacher answered.", examples=[3])
    sure: float | None = Field(description="Confidence of the teacher, where it gives one.")
    calibrated: bool = Field(description="Whether that is the share of right answers that have it, as known rows say.")
    teacher: str = Field(description="Who answered, or was asked last.", examples=["large"])
    ms: float = Field(description="Milliseconds that teachers took.")
    cost: float = Field(description="What all calls for it have cost.")
    reason: str = Field(description="Why there is no label.")
    learn: bool = Field(description="Whether the label counts as feedback.")
    told: bool = Field(description="Whether the answer was sent to the device; a label is sent until it is connected.")
    claimed_by: str | None = Field(description="The person who looks at it, or has answered.")
    skips: int = Field(description="Times that a person has passed it on.")


class _Reply:
    """The answer to a request, or, once it has been left, to the device itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after: Then) -> None:
        self._loop, self._after = loop, after
        self._lock, self._left = threading.Lock(), False
        self.future: asyncio.Future[TeacherAnswer | None] = loop.create_future()

    def __call__(self, answer: TeacherAnswer | None) -> bool:
        with self._lock:
            if not self._left:
                self._left = True
                self._loop.call_soon_threadsafe(self._set, answer)
                return answer is not None
        return self._after(answer)

    def leave(self) -> bool:
        """Wait no longer; False when the answer is on its way already."""
        with self._lock:
            left, self._left = self._left, True
        return not left

    def _set(self, answer: TeacherAnswer | None) -> None:
        if not self.future.done():
            self.future.set_result(answer)


def router(hub: Hub) -> APIRouter:
    """The addresses of escalations."""
    routes = APIRouter(prefix="/escalations", tags=["teachers"])

    @routes.post(
        "",
        response_class=Response,
        responses={
            200: {"description": "An `Answers` with the teacher's answer.", **OCTETS},
            202: {"description": "An empty `Answers`: the answer comes over MQTT.", **OCTETS},
            **responses(BadRequest, Forbidden),
        },
        openapi_extra=in_openapi("An `Escalation`"),
    )
    async def escalate(request: Request) -> Response:
        """A device's: ask a teacher. With ``wait`` the answer is in the response, where it comes in time."""
        payload = await request.body()
        asker = principal(request)

        escalation = await run_in_threadpool(own, Escalation, payload, asker)

        def tell(answer: TeacherAnswer | None) -> bool:
            return hub.teaching.office.tell(escalation.device, answer)

        follows = Response(Answers(()).to_bytes(), 202, media_type=CBOR)
        if not escalation.wait:
            await run_in_threadpool(hub.teaching.office.take, escalation, payload, tell)
            return follows
        reply = _Reply(asyncio.get_running_loop(), tell)
        patience_s = escalation.deadline_ms / 1e3 or hub.settings.escalation_patience_s
        try:
            async with asyncio.timeout(patience_s):
                await run_in_threadpool(hub.teaching.office.take, escalation, payload, reply)
                answer = await reply.future
        except TimeoutError:
            if reply.leave():
                return follows
            answer = await reply.future
        if answer is None:
            return follows
        return Response(Answers((), escalated=(answer,)).to_bytes(), media_type=CBOR)

    @routes.get("")
    def list_escalations(
        channel: Annotated[str | None, Query(description="Only of this channel.", examples=["stable"])] = None,
        release: Annotated[str | None, Query(description="Only of this release.")] = None,
        state: Annotated[str | None, Query(description="answered, unanswered or asked.")] = None,
        since: Annotated[float | None, Query(description="Only what came later, unix seconds.")] = None,
        before: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Only lower numbers.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> list[EscalationAnswer]:
        """What was asked and answered, the newest first; without the inputs."""
        found = hub.teaching.records.newest(channel, release, state, since, before, limit)
        return [EscalationAnswer.model_validate(record, from_attributes=True) for record in found]

    return routes
