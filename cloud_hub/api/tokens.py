"""``/api/v1/tokens``: what programs show; ``/api/v1/me``: who the hub takes the caller for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cloud_hub.access.principals import Principal, Role
from cloud_hub.access.tokens import MOST_NAMES, Token, plain
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_EXAMPLE: JsonValue = {
    "name": "ci",
    "role": "publisher",
    "channels": ["stable"],
    "models": ["digits"],
    "expires_in_s": 7776000,
}
Names = Annotated[list[str] | None, Field(max_length=MOST_NAMES)]


class TokenAnswer(BaseModel):
    """A token, without its secret."""

    id: str = Field(description="The part of it that is no secret.", examples=["0f3a9c4d21be"])
    name: str = Field(description="Whom it is for.", examples=["ci"])
    role: Role
    channels: list[str] | None = Field(description="The only channels that it may touch; null for all.")
    models: list[str] | None = Field(description="The only models that it may touch; null for all.")
    created: float = Field(description="Unix seconds.")
    created_by: str = Field(examples=["person:ada"])
    expires: float | None = Field(description="Unix seconds; null for never.")
    revoked: float | None = Field(description="Unix seconds; null while it is good.")


class CreatedAnswer(TokenAnswer):
    """A new token; it is shown this once."""

    token: str = Field(description="What a client sends: Authorization: Bearer …", examples=["el_0f3a9c4d21be_7c…"])


class TokenBody(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    name: str = Field(min_length=1, max_length=128, description="Whom it is for: the audit log knows it by this name.")
    role: Role
    channels: Names = Field(default=None, description="The only channels that it may touch; left out: all.")
    models: Names = Field(default=None, description="The only models that it may touch; left out: all.")
    expires_in_s: float | None = Field(
        default=90 * 86_400.0, gt=0, le=10 * 366 * 86_400.0, description="Seconds that it is good for; null: for ever."
    )


class MeAnswer(BaseModel):
    """Whom the hub takes the caller for."""

    kind: str = Field(description="token, person, device, local, development or anonymous.", examples=["token"])
    name: str = Field(examples=["ci"])
    display: str = Field(description="What people call them, or empty.")
    roles: list[Role]
    channels: list[str] | None = Field(description="The only channels that they may touch; null for all.")
    models: list[str] | None = Field(description="The only models that they may touch; null for all.")


def router(hub: Hub) -> APIRouter:
    """The addresses of tokens."""
    routes = APIRouter(tags=["access"])

    @routes.get("/me")
    def me(who: Annotated[Principal, Depends(principal)]) -> MeAnswer:
        """Whom the hub takes the caller for, and what they may touch."""
        return MeAnswer(
            kind=who.kind,
            name=who.name,
            display=who.display,
            roles=sorted(who.roles, key=list(Role).index),
            channels=None if who.channels is None else sorted(who.channels),
            models=None if who.models is None else sorted(who.models),
        )

    @routes.get("/tokens")
    def list_tokens() -> list[TokenAnswer]:
        """Every token, the oldest first; also those that are over."""
        return [_answer(token) for token in hub.access.tokens.all()]

    @routes.post("/tokens", status_code=201, responses=responses(BadRequest))
    def create(body: TokenBody) -> CreatedAnswer:
        """Make a token; only this answer ever shows it."""
        made = hub.access.tokens.create(
            body.name, body.role, channels=body.channels, models=body.models, lasts_s=body.expires_in_s
        )
        return CreatedAnswer(**_answer(made.token).model_dump(), token=made.text)

    @routes.delete("/tokens/{token}", responses=responses(NotFound))
    def revoke(token: str) -> TokenAnswer:
        """End a token at once."""
        return _answer(hub.access.tokens.revoke(token))

    return routes


def _answer(token: Token) -> TokenAnswer:
    return TokenAnswer.model_validate(plain(token))
