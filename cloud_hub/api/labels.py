"""``/api/v1/labels``: true labels that people give in the cloud, passed on to the device that made the predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from cloud_hub.api.errors import responses
from cloud_hub.errors import BadRequest, Conflict, NotFound

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_EXAMPLE: dict[str, Any] = {
    "device": "camera-1",
    "items": [{"id": "4f1c-17", "label": 3}, {"id": "4f1c-18", "label": "seven"}],
}


class LabelItem(BaseModel):
    """The true label of one prediction."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=128, description="The prediction's id, as the agent answered it.")
    label: int | str = Field(description="A class's index, or its name.")


class LabelsBody(BaseModel):
    """Labels of one device's predictions."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    device: str = Field(max_length=64)
    items: list[LabelItem] = Field(min_length=1, max_length=10_000)


class LabelsAnswer(BaseModel):
    """What was sent. What the device made of it is seen in its totals."""

    sent: int = Field(examples=[2])


def router(hub: Hub) -> APIRouter:
    """The addresses of labels."""
    routes = APIRouter(prefix="/labels", tags=["labels"])

    @routes.post("", status_code=202, responses=responses(NotFound, Conflict, BadRequest))
    def send(body: LabelsBody) -> LabelsAnswer:
        """Pass labels on to a connected device."""
        return LabelsAnswer(sent=hub.labels.send(body.device, [(item.id, item.label) for item in body.items]))

    return routes
