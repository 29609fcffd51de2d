"""``/api/v1/webhooks``: addresses that are told of alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud_hub.api.errors import responses
from cloud_hub.api.row_id import RowId
from cloud_hub.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from cloud_hub.app import Hub


class WebhookBody(BaseModel):
    """An address that is to be told."""

    url: str = Field(description="http or https.", examples=["https://example.org/alarms"])
    channel: str | None = Field(default=None, description="Only alarms of this channel.", examples=["stable"])
    secret: str | None = Field(
        default=None, description="What to sign with: whsec_ and 24 to 64 bytes in base64; left out: the hub makes one."
    )

    model_config = {"extra": "forbid", "json_schema_extra": {"examples": [{"url": "https://example.org/alarms"}]}}


class WebhookAnswer(BaseModel):
    """An address that is told of alarms."""

    id: int = Field(examples=[1])
    url: str = Field(examples=["https://example.org/alarms"])
    channel: str | None = Field(examples=[None])
    created: float = Field(description="Unix seconds.")
    stopped: str = Field(description="Why nothing is sent there any more, or empty.", examples=[""])


class AddedAnswer(WebhookAnswer):
    """A new webhook; its secret is shown this once."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class DeliveryAnswer(BaseModel):
    """One message to a webhook."""

    message: str = Field(description="Its webhook-id, the same over all tries.", examples=["msg_2b1f"])
    event: str = Field(examples=["alarm.raised"])
    state: str = Field(description="waiting, delivered or given up.", examples=["delivered"])
    created: float = Field(description="Unix seconds.")
    due: float = Field(description="Next try, unix seconds.")
    attempts: int = Field(examples=[1])
    ended: float | None = Field(description="Unix seconds.")
    outcome: str = Field(description="What the last try brought.", examples=["it answered 200"])


def router(hub: Hub) -> APIRouter:
    """The addresses of webhooks."""
    routes = APIRouter(prefix="/webhooks", tags=["webhooks"])

    @routes.get("")
    def all_webhooks() -> list[WebhookAnswer]:
        """Every webhook, without its secret."""
        return [WebhookAnswer.model_validate(found, from_attributes=True) for found in hub.webhooks.all()]

    @routes.post("", status_code=201, responses=responses(BadRequest))
    def add(body: WebhookBody) -> AddedAnswer:
        """Tell an address of alarms from now on."""
        found = hub.webhooks.add(body.url, body.channel, body.secret)
        return AddedAnswer.model_validate(found, from_attributes=True)

    @routes.delete("/{webhook}", status_code=204, responses=responses(NotFound))
    def remove(webhook: RowId) -> None:
        """Tell an address nothing any more."""
        hub.webhooks.remove(webhook)

    @routes.get("/{webhook}/deliveries", responses=responses(NotFound))
    def deliveries(webhook: RowId, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[DeliveryAnswer]:
        """What was sent to a webhook or waits to be, the newest first."""
        found = hub.webhooks.deliveries(webhook, limit)
        return [DeliveryAnswer.model_validate(delivery, from_attributes=True) for delivery in found]

    @routes.post("/{webhook}/test", status_code=202, responses=responses(NotFound))
    def test(webhook: RowId) -> DeliveryAnswer:
        """Send a message that means nothing, to see whether it arrives."""
        return DeliveryAnswer.model_validate(hub.webhooks.test(webhook), from_attributes=True)

    return routes
