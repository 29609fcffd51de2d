"""``/api/v1/labelling``: what people are asked, by hand or by way of Label Studio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from cloud_hub.access.principals import Principal
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.api.row_id import RowId
from cloud_hub.errors import BadRequest, Conflict, HubError, NotFound
from cloud_hub.escalations import label_studio
from cloud_hub.escalations.labelling import at_once
from cloud_hub.escalations.records import EscalationRecord

if TYPE_CHECKING:
    from cloud_hub.app import Hub

Who = Annotated[Principal, Depends(principal)]
Channel = Annotated[str | None, Query(description="Only of this channel.", examples=["stable"])]
Teacher = Annotated[str | None, Query(description="Only what these people were asked.", examples=["people"])]
#: Labels that an item lists; a model with more is labelled by number.
MAX_LABELS = 1000


class ItemAnswer(BaseModel):
    """Something that a person is asked."""

    item: int = Field(examples=[17])
    channel: str = Field(examples=["stable"])
    teacher: str = Field(description="The people who are asked.", examples=["people"])
    device: str = Field(examples=["camera-1"])
    received: float = Field(description="Unix seconds.")
    state: str = Field(description="asked; answered or unanswered once it is dealt with.", examples=["asked"])
    label: int | None = Field(description="The answer, once there is one.")
    predicted: int = Field(description="What the device answered.", examples=[3])
    confidence: float = Field(description="Of that answer.")
    claimed_by: str | None = Field(description="Whose it is, or was.", examples=["person:ada"])
    claimed_until: float | None = Field(description="Until when, unix seconds.")
    skips: int = Field(description="Times that it was passed on.")


class ShownAnswer(ItemAnswer):
    """An item with what there is to see."""

    labels: list[str] = Field(description="Names of the classes, in order.", examples=[["cat", "dog"]])
    image: str | None = Field(description="A picture, as a data URL.")
    text: str | None = Field(description="What is no picture: a text, or numbers.")


class LabelBody(BaseModel):
    """What an item is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"label": "seven"}]})

    label: int | str = Field(description="A class's index, or its name.")


class SkipBody(BaseModel):
    """Why an item is passed on."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=200)


class ImportedAnswer(BaseModel):
    """What became of an import."""

    labelled: int = Field(examples=[98])
    skipped: int = Field(description="Tasks that nobody has answered, or that were skipped.", examples=[1])
    refused: list[str] = Field(description="Tasks that changed nothing, and why.")


def router(hub: Hub) -> APIRouter:
    """The addresses of labelling."""
    routes = APIRouter(prefix="/labelling", tags=["teachers"])
    labelling = hub.teaching.labelling

    def show(record: EscalationRecord) -> ShownAnswer:
        question = labelling.question(record)
        seen = label_studio.shown(question, labelling.picture(record))
        labels = list(question.names()) if question.classes <= MAX_LABELS else []
        return ShownAnswer(**_plain(record), labels=labels, image=seen.get("image"), text=seen.get("text"))

    @routes.get("")
    def list_items(
        channel: Channel = None, teacher: Teacher = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[ItemAnswer]:
        """What waits for people, without the inputs."""
        return [ItemAnswer(**_plain(record)) for record in labelling.waiting(channel, teacher, limit)]

    @routes.post("/claim")
    def claim(
        channel: Channel = None, teacher: Teacher = None, count: Annotated[int, Query(ge=1, le=100)] = 1
    ) -> list[ShownAnswer]:
        """Take items, with what there is to see: nobody else gets them for some minutes."""
        return [show(record) for record in labelling.claim(count, channel, teacher)]

    @routes.get("/label-studio")
    def export(
        channel: Channel = None, teacher: Teacher = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[dict[str, Any]]:
        """What waits for people, as tasks that Label Studio imports."""
        records = at_once(labelling.waiting(channel, teacher, limit))
        return [label_studio.task(one, labelling.question(one), labelling.picture(one)) for one in records]

    @routes.post("/label-studio", responses=responses(BadRequest))
    def import_labels(
        tasks: Annotated[list[dict[str, Any]], Body(max_length=10_000, description="JSON or JSON_MIN.")],
        who: Who,
        channel: Channel = None,
    ) -> ImportedAnswer:
        """Take what Label Studio exports; a task that cannot be taken holds up no other."""
        try:
            found = label_studio.read_export(tasks)
        except ValueError as error:
            raise BadRequest(f"this is no export of Label Studio: {error}", "export as JSON or JSON_MIN") from error
        refused, labelled = [], 0
        for one in found:
            if one.label is None:
                continue
            try:
                record = labelling.get(one.item)
                if label_studio.about(record) != one.about or not who.may_touch_channel(record.channel):
                    raise NotFound(f"item {one.item} is another one than the task says")
                if channel is not None and record.channel != channel:
                    raise NotFound(f"item {one.item} is not on the channel {channel}")
                labelling.label(one.item, one.label)
                labelled += 1
            except HubError as error:
                refused.append(str(error))
        return ImportedAnswer(labelled=labelled, skipped=sum(one.label is None for one in found), refused=refused)

    @routes.get("/{item}", responses=responses(NotFound))
    def get_item(item: RowId) -> ShownAnswer:
        """One item, with what there is to see."""
        return show(labelling.get(item))

    @routes.post("/{item}/label", responses=responses(NotFound, Conflict, BadRequest))
    def label(item: RowId, body: LabelBody) -> ItemAnswer:
        """Say what it is; its device is told when it is connected."""
        return ItemAnswer(**_plain(labelling.label(item, body.label)))

    @routes.post("/{item}/release", responses=responses(NotFound, Conflict))
    def release(item: RowId) -> ItemAnswer:
        """Give it back."""
        return ItemAnswer(**_plain(labelling.release(item)))

    @routes.post("/{item}/skip", responses=responses(NotFound, Conflict))
    def skip(item: RowId, body: SkipBody) -> ItemAnswer:
        """Pass it on to somebody else; after three nobody is asked any more."""
        return ItemAnswer(**_plain(labelling.skip(item, body.reason)))

    return routes


def _plain(record: EscalationRecord) -> dict[str, Any]:
    return {"item": record.number} | {name: getattr(record, name) for name in ItemAnswer.model_fields if name != "item"}
