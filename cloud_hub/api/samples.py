"""``/api/v1/samples``: inputs that devices send for retraining; their labels, and their deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from cloud_hub.api.device_messages import CBOR, OCTETS, in_openapi, own
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.api.row_id import RowId
from cloud_hub.errors import BadRequest, Forbidden, NotFound, StorageFull
from cloud_hub.samples.store import Wanted
from edgeloop.protocol import Ack, Sample, encode
from edgeloop.protocol.inputs import MAX_INPUT_BYTES

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
Channel = Annotated[str | None, Query(max_length=64, description="Only on this channel.", examples=["stable"])]
Device = Annotated[str | None, Query(max_length=64, description="Only of this device.", examples=["camera-1"])]
Since = Annotated[float | None, Query(description="Taken at this time or later, unix seconds.")]
Until = Annotated[float | None, Query(description="Taken before, unix seconds.")]


class SampleAnswer(BaseModel):
    """A sample, without its inputs."""

    number: int = Field(examples=[17])
    device: str = Field(examples=["camera-1"])
    channel: str = Field(examples=["stable"])
    release: str = Field(description="Digest of the release that answered.", examples=[_DIGEST])
    prediction: str = Field(description="Id of the prediction.", examples=["4f1c-17"])
    row: int = Field(description="In its request.", examples=[0])
    segment: str
    form: str = Field(description="What travelled: input, small or features.", examples=["input"])
    strategy: str = Field(description="Why it was taken.", examples=["uncertainty"])
    probability: float = Field(description="Chance with which it was drawn; its inverse is its weight.")
    predicted: int = Field(description="Class that the device answered.")
    confidence: float = Field(description="Of that answer.")
    taken: float = Field(description="Unix seconds by the device's clock.")
    received: float = Field(description="Unix seconds.")
    expires: float | None = Field(description="Unix seconds at which it is deleted; null: it is kept.")
    label: int | None = Field(description="True class, as far as somebody has said.", examples=[3])
    source: str = Field(description="Who said so: device, teacher or person; else empty.", examples=["person"])
    bytes: int = Field(description="Of its file.")


class TotalsAnswer(BaseModel):
    """Samples of one channel and strategy."""

    channel: str = Field(examples=["stable"])
    strategy: str = Field(examples=["random"])
    samples: int
    labelled: int
    bytes: int
    since: float = Field(description="When the first was taken, unix seconds.")
    until: float = Field(description="When the last was taken, unix seconds.")


class SampleLabel(BaseModel):
    """What is right."""

    model_config = ConfigDict(extra="forbid")

    label: int | str | None = Field(description="A class's index or its name; null takes back what somebody said.")


class DeletionAnswer(BaseModel):
    """What was deleted; the audit log has the same."""

    id: str = Field(examples=["3f9c2a71d04be865"])
    device: str | None = Field(description="Of this device; null: of all.")
    channel: str | None = Field(description="On this channel; null: on all.")
    since: float | None = Field(description="Taken at this time or later, unix seconds; null: at any time.")
    until: float = Field(description="Taken before, unix seconds.")
    at: float = Field(description="When, unix seconds.")
    count: int = Field(description="Samples, and inputs of escalations, that were deleted.")
    bytes: int = Field(description="Of them.")
    list_sha256: str = Field(description="SHA-256 of the list of them, as it is served.")


def router(hub: Hub) -> APIRouter:
    """The addresses of samples."""
    routes = APIRouter(prefix="/samples", tags=["samples"])
    samples = hub.samples

    @routes.post(
        "",
        response_class=Response,
        responses={
            200: {"description": "An `Ack` with the sample's number.", **OCTETS},
            **responses(BadRequest, Forbidden, StorageFull),
        },
        openapi_extra=in_openapi("A `Sample`"),
    )
    async def send(request: Request) -> Response:
        """A device's: send a sample that is too large for MQTT."""
        payload = await request.body()
        asker = principal(request)

        def take() -> Ack:
            return samples.intake.take(own(Sample, payload, asker))

        ack = await run_in_threadpool(take)
        return Response(ack.to_bytes(), media_type=CBOR)

    @routes.get("")
    def list_samples(
        channel: Channel = None,
        device: Device = None,
        since: Since = None,
        until: Until = None,
        labelled: Annotated[bool | None, Query(description="With, or without, a label.")] = None,
        after: Annotated[int, Query(ge=0, le=2**62, description="Only higher numbers.")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> list[SampleAnswer]:
        """Samples in the order in which they came, without their inputs."""
        wanted = Wanted(device, channel, since, until, labelled)
        found = samples.store.list(wanted, after=after, limit=limit)
        return [SampleAnswer.model_validate(row, from_attributes=True) for row in found]

    @routes.get("/totals")
    def totals(
        channel: Channel = None, device: Device = None, since: Since = None, until: Until = None
    ) -> list[TotalsAnswer]:
        """How many there are, of each channel and strategy."""
        return [TotalsAnswer(**row) for row in samples.store.totals(Wanted(device, channel, since, until))]

    @routes.delete("", responses=responses(BadRequest, StorageFull))
    def delete(
        channel: Channel = None, device: Device = None, since: Since = None, until: Until = None
    ) -> DeletionAnswer:
        """Delete samples, and inputs of escalations, for good; what is on its way of them is not kept any more."""
        return DeletionAnswer(**vars(samples.deletions.delete(Wanted(device, channel, since, until))))

    @routes.get("/deletions")
    def deletions() -> list[DeletionAnswer]:
        """What was deleted, the newest first."""
        return [DeletionAnswer(**vars(found)) for found in samples.deletions.all()]

    @routes.get("/deletions/{deletion}", response_class=Response, responses=responses(NotFound))
    def deleted(deletion: str) -> Response:
        """The list of what was deleted, a line of JSON each; `list_sha256` is of these bytes."""
        return Response(samples.deletions.listed(deletion), media_type="application/jsonl")

    @routes.get("/{sample}", responses=responses(NotFound))
    def get(sample: RowId) -> SampleAnswer:
        """One sample, without its inputs."""
        return SampleAnswer.model_validate(samples.store.get(sample), from_attributes=True)

    @routes.get(
        "/{sample}/inputs",
        response_class=Response,
        responses={200: {"description": "Tensors by name.", **OCTETS}, **responses(NotFound)},
    )
    def inputs(sample: RowId) -> Response:
        """What the device sent: tensors by name, CBOR, as in a `Sample`."""
        found = samples.store.files.tensors(samples.store.get(sample).sha256)
        wire = {name: tensor.to_wire() for name, tensor in found.items()}
        return Response(encode(wire, 2 * MAX_INPUT_BYTES), media_type=CBOR)

    @routes.put("/{sample}/label", responses=responses(NotFound, BadRequest))
    def label(sample: RowId, body: SampleLabel) -> SampleAnswer:
        """Say what is right of a sample."""
        return SampleAnswer.model_validate(samples.label(sample, body.label), from_attributes=True)

    return routes
