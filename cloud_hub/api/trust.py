"""``/api/v1/trust`` and ``/tuf``: the fleet's signed metadata, for people who sign and for devices that verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from cloud_hub.api.errors import responses
from cloud_hub.errors import BadRequest, Conflict, NotFound, TooLarge
from cloud_hub.trust.online import OnlineTrust
from edgeloop.trust.names import ROOT, TARGETS, TIMESTAMP

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_KEYID = "4fcd8abc0b7e6ba60ad36bf43d1dc1ff3d7e0aeec5f06ddbb94d4b8e7b0ac6ff"


class OnlineKeyAnswer(BaseModel):
    """The public half of a key of the hub, as ``model-export keys`` takes it."""

    number: int = Field(description="1 for the first; a rotation makes the next.", examples=[1])
    in_use: bool = Field(description="Whether the fleet's metadata name it.")
    keyid: str = Field(examples=[_KEYID])
    keytype: str = Field(examples=["ed25519"])
    scheme: str = Field(examples=["ed25519"])
    keyval: dict[str, str]


class RoleAnswer(BaseModel):
    """The newest metadata of a role."""

    role: str = Field(examples=["releases.digits"])
    version: int = Field(examples=[7])
    expires: float = Field(description="Unix seconds.", examples=[1798761600.0])
    threshold: int = Field(description="Signatures that it needs.", examples=[1])
    keyids: list[str] = Field(description="Keys that may sign it.", examples=[[_KEYID]])
    signed: bool = Field(description="Whether its present keys have signed it.")


class TrustAnswer(BaseModel):
    """Who signs what in this fleet, until when, and what has to be done."""

    signed: bool = Field(description="False in a fleet that runs without signatures (insecure).")
    ready: bool = Field(description="Whether the hub signs channels.")
    problem: str = Field(description="Why it does not, or empty.", examples=["there is no root yet"])
    fleet: str = Field(examples=["default"])
    online: dict[str, OnlineKeyAnswer] = Field(description="Role → the key that the hub wants to sign it with.")
    online_keys: dict[str, list[OnlineKeyAnswer]] = Field(description="Role → all of its keys, the newest last.")
    versions: dict[str, int] = Field(description="Role → its newest version.", examples=[{"root": 1, "targets": 4}])
    roles: list[RoleAnswer]
    in_use: dict[str, list[str]] = Field(
        description="Path of each release that may not be forgotten → the channels that need it.",
        examples=[{"releases/digits/17": ["stable"]}],
    )
    named: list[str] = Field(
        description="The paths of in_use: publishers go on to name them.", examples=[["releases/digits/17"]]
    )
    warnings: list[str] = Field(examples=[["root 3 expires on 2026-12-20: sign the next version before"]])


class AcceptedAnswer(BaseModel):
    """Metadata that were taken."""

    role: str = Field(examples=["targets"])
    version: int = Field(examples=[4])
    expires: float = Field(description="Unix seconds.", examples=[1798761600.0])


_FILE_IN_OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The metadata file as it was signed.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


async def _raw_body(request: Request) -> bytes:
    """The body as it came: signatures are over what is in it, and its bytes are what devices get."""
    return await request.body()


FileBody = Annotated[bytes, Depends(_raw_body)]
_REFUSALS = responses(BadRequest, Conflict, TooLarge)


def router(hub: Hub) -> APIRouter:
    """The addresses for people who sign."""
    routes = APIRouter(prefix="/trust", tags=["trust"])

    def trust() -> OnlineTrust:
        if hub.trust is None:
            raise Conflict("this hub signs nothing: it is insecure", "set insecure = false and start it again")
        return hub.trust

    @routes.get("")
    def show() -> TrustAnswer:
        """Who signs what, until when, and the hub's own public keys."""
        document = hub.trust_view().to_document(hub.settings.fleet, signed=hub.trust is not None)
        return TrustAnswer.model_validate(document)

    @routes.get("/metadata/{role}", response_class=Response, responses=responses(NotFound, Conflict))
    def metadata(role: str) -> Response:
        """The newest metadata file of a role, byte for byte: what the next version is made from."""
        return Response(trust().newest(role), media_type="application/json")

    def accept(role: str, content: bytes) -> AcceptedAnswer:
        return AcceptedAnswer.model_validate(trust().accept(role, content), from_attributes=True)

    # Three addresses, since not everybody may send each.
    @routes.put("/metadata/root", responses=_REFUSALS, openapi_extra=_FILE_IN_OPENAPI)
    def put_root(content: FileBody) -> AcceptedAnswer:
        """Take the next version of root, signed by the keys of the last and its own; the first one is believed."""
        return accept(ROOT, content)

    @routes.put("/metadata/targets", responses=_REFUSALS, openapi_extra=_FILE_IN_OPENAPI)
    def put_targets(content: FileBody) -> AcceptedAnswer:
        """Take the next version of targets, which says who publishes what; the same bytes again change nothing."""
        return accept(TARGETS, content)

    @routes.put("/metadata/{role}", responses=_REFUSALS, openapi_extra=_FILE_IN_OPENAPI)
    def put_releases(role: str, content: FileBody) -> AcceptedAnswer:
        """Take the next version of ``releases.<model>``, signed by its publishers."""
        return accept(role, content)

    return routes


def files_router(hub: Hub) -> APIRouter:
    """The address for devices: public, since everything there is signed."""
    routes = APIRouter(tags=["trust"])

    @routes.get("/tuf/{file}", response_class=Response, responses=responses(NotFound))
    def file(file: str) -> Response:
        """A metadata file of The Update Framework: ``timestamp.json``, ``<version>.<role>.json``."""
        if hub.trust is None:
            raise NotFound("this hub has no signed metadata: it is insecure")
        content = hub.trust.file(file)
        changes = file == f"{TIMESTAMP}.json"
        caching = "no-cache" if changes else "public, max-age=31536000, immutable"
        return Response(content, media_type="application/json", headers={"cache-control": caching})

    return routes
