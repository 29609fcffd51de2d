"""``/api/v1/audit``: who changed what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud_hub.access import audit

if TYPE_CHECKING:
    from cloud_hub.app import Hub


class EntryAnswer(BaseModel):
    """One change."""

    number: int = Field(description="Counted from 1 without a gap.", examples=[17])
    at: float = Field(description="Unix seconds.", examples=[1767225600.0])
    who: str = Field(description="Kind and name of the principal; hub:hub by itself.", examples=["token:ci"])
    what: str = Field(description="The kind of change.", examples=["channel.policy"])
    about: str = Field(description="The thing that was changed.", examples=["stable"])
    before: Any = Field(description="What it was; null where it was not there.")
    after: Any = Field(description="What it is now; null where it is gone.")
    previous: str = Field(description="Hash of the entry before, hex.")
    hash: str = Field(description="sha256 over all of this, hex.")


class HeadAnswer(BaseModel):
    """The newest entry: keep it elsewhere, to prove later that nothing before it was touched."""

    number: int = Field(description="0 where there is none.", examples=[17])
    hash: str = Field(description="Hex.", examples=["0" * 64])


def router(hub: Hub) -> APIRouter:
    """The addresses of the audit log."""
    routes = APIRouter(prefix="/audit", tags=["access"])

    @routes.get("")
    def entries(
        after: Annotated[
            int | None, Query(ge=0, le=2**62, description="Entries above this number, the oldest first.")
        ] = None,
        about: Annotated[str | None, Query(max_length=256, description="Only changes of this thing.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> list[EntryAnswer]:
        """Changes: the newest first, or from a number on."""
        with hub.db.read() as connection:
            if after is None:
                found = audit.newest(connection, limit, about)
            else:
                found = audit.entries(connection, after, limit, about)
        return [EntryAnswer(**audit.plain(entry)) for entry in found]

    @routes.get("/head")
    def head() -> HeadAnswer:
        """The newest entry's number and hash."""
        with hub.db.read() as connection:
            return HeadAnswer(**vars(audit.head(connection)))

    return routes
