"""``/api/v1/releases/{digest}/attestations``: how a release was made, for whoever verifies it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Request, Response

from cloud_hub.api.errors import responses
from cloud_hub.attestations import KINDS
from cloud_hub.errors import BadRequest, Conflict, NotFound, StorageFull, TooLarge

if TYPE_CHECKING:
    from cloud_hub.app import Hub


async def _raw_body(request: Request) -> bytes:
    """The body as it came: signatures and hashes are over its bytes."""
    return await request.body()


_IN_OPENAPI = {
    "requestBody": {
        "required": True,
        "description": "A DSSE envelope of an in-toto statement, or a bill of materials of CycloneDX.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


def router(hub: Hub) -> APIRouter:
    """The addresses of attestations."""
    routes = APIRouter(prefix="/releases/{digest}/attestations", tags=["releases"])

    @routes.get("/{kind}", response_class=Response, responses=responses(NotFound))
    def get_attestation(digest: str, kind: str) -> Response:
        """The ``provenance`` or the ``sbom`` of a release, byte for byte."""
        return Response(hub.attestations.get(digest, kind), media_type=KINDS[kind])

    @routes.put(
        "/{kind}",
        status_code=204,
        responses=responses(BadRequest, NotFound, Conflict, TooLarge, StorageFull),
        openapi_extra=_IN_OPENAPI,
    )
    def put_attestation(digest: str, kind: str, body: Annotated[bytes, Depends(_raw_body)]) -> None:
        """Keep the ``provenance`` of a release, then the ``sbom`` that it names; a later one takes its place."""
        hub.attestations.put(digest, kind, body)

    return routes
