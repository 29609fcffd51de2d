"""``/api/v1/releases``: what is published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from cloud_hub.access.principals import Principal
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.errors import BadRequest, Conflict, Forbidden, NotFound, StorageFull
from cloud_hub.releases import Release

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_INDEX_EXAMPLE = {"files": [{"path": "manifest.json", "sha256": _DIGEST.removeprefix("sha256:"), "size": 2113}], "v": 1}


async def _raw_body(request: Request) -> bytes:
    """The body as it came: the digest is over its bytes, so nothing may parse and write it again."""
    return await request.body()


Who = Annotated[Principal, Depends(principal)]
IndexBody = Annotated[bytes, Depends(_raw_body)]
_INDEX_IN_OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The index as canonical JSON.",
        "content": {"application/json": {"schema": {"type": "object"}, "example": _INDEX_EXAMPLE}},
    }
}


class ReleaseAnswer(BaseModel):
    """A published package."""

    digest: str = Field(examples=[_DIGEST])
    name: str = Field(examples=["digits"])
    version: str = Field(examples=["1.0.0"])
    parent: str | None = Field(description="Digest of the release that it was made from.")
    source: str = Field(description="published, or retrained for the hub's own.", examples=["published"])
    created: float = Field(description="Unix seconds.", examples=[1767225600.0])
    size: int = Field(description="Bytes of all its files.", examples=[312_000])
    index_size: int = Field(description="Bytes of its index.", examples=[2400])
    metrics: dict[str, Any] = Field(description="Variant → metrics, as its manifest says.")
    lineage: dict[str, Any] = Field(description="Where it comes from, as its manifest says.")
    attestations: list[str] = Field(
        default=[], description="What is known of how it was made: provenance, sbom.", examples=[["provenance", "sbom"]]
    )


class Missing(BaseModel):
    """What has to be sent before the release can be published."""

    digest: str = Field(examples=[_DIGEST])
    missing: list[str] = Field(description="sha256 of each file that the hub lacks, each once.", examples=[["9f86…"]])


class Published(BaseModel):
    """A release that is there now."""

    digest: str = Field(examples=[_DIGEST])
    name: str = Field(examples=["digits"])
    version: str = Field(examples=["1.0.0"])


def router(hub: Hub) -> APIRouter:
    """The addresses of releases."""
    routes = APIRouter(prefix="/releases", tags=["releases"])

    def answer(release: Release) -> ReleaseAnswer:
        """A release as JSON."""
        found = ReleaseAnswer.model_validate(release, from_attributes=True)
        return found.model_copy(update={"attestations": list(hub.attestations.kinds(release.digest))})

    @routes.get("")
    def list_releases(who: Who) -> list[ReleaseAnswer]:
        """All releases that you may see, newest first."""
        return [answer(release) for release in hub.releases.all() if who.may_touch_model(release.name)]

    @routes.post("/missing", responses=responses(BadRequest), openapi_extra=_INDEX_IN_OPENAPI)
    def missing(index: IndexBody) -> Missing:
        """Which files of an index the hub lacks: PUT each to ``/api/v1/blobs/{sha256}``."""
        digest, lacking = hub.releases.missing(index)
        return Missing(digest=digest, missing=list(lacking))

    @routes.post(
        "",
        status_code=201,
        responses=responses(BadRequest, Conflict, StorageFull, Forbidden),
        openapi_extra=_INDEX_IN_OPENAPI,
    )
    def publish(index: IndexBody, who: Who) -> Published:
        """Publish a release whose files are all there; the same index again is the same release."""

        def check(model: str) -> None:
            if not who.may_touch_model(model):
                raise Forbidden(f"the model {model!r:.80} is not one of yours", "publish it with another token")

        release = hub.releases.publish(index, check=check)
        return Published(digest=release.digest, name=release.name, version=release.version)

    @routes.get("/{digest}", responses=responses(NotFound))
    def get_release(digest: str) -> ReleaseAnswer:
        """One release."""
        return answer(hub.releases.get(digest))

    @routes.get("/{digest}/index", response_class=Response, responses=responses(NotFound))
    def index(digest: str) -> Response:
        """The index byte for byte: its sha256 is the digest."""
        return Response(hub.releases.index_bytes(digest), media_type="application/json", headers=_unchanging(digest))

    @routes.get("/{digest}/lineage", responses=responses(NotFound))
    def lineage(digest: str) -> list[ReleaseAnswer]:
        """The release and its ancestors, nearest first, as far as this hub knows them."""
        return [answer(release) for release in hub.releases.lineage(digest)]

    return routes


def _unchanging(digest: str) -> dict[str, str]:
    return {"etag": f'"{digest}"', "cache-control": "private, max-age=31536000, immutable"}
