"""``/api/v1/blobs``: the files of releases, each by its sha256."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from cloud_hub.api.body_limit import drain
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.errors import BadRequest, HubError, NotFound, StorageFull, TooLarge

if TYPE_CHECKING:
    from cloud_hub.app import Hub

#: Chunks are written in pieces of this size: one change of threads for each would cost more than the writing.
_PIECE = 1 << 20


def router(hub: Hub) -> APIRouter:
    """The addresses of blobs."""
    routes = APIRouter(prefix="/blobs", tags=["blobs"])

    def head_blob(sha256: str) -> FileResponse:
        headers = {"etag": f'"{sha256}"', "cache-control": "private, max-age=31536000, immutable"}
        return FileResponse(hub.blobs.path(sha256), media_type="application/octet-stream", headers=headers)

    def get_blob(sha256: str, request: Request) -> FileResponse:
        """The file; ``Range`` is served, so that a device goes on where it was cut off."""
        found, who = head_blob(sha256), principal(request)
        if who.kind in ("device", "development"):
            size = hub.blobs.size(sha256) - _skipped(request.headers.get("range", ""))
            hub.costs.fetched(who.name if who.kind == "device" else "", max(0, size))
        return found

    routes.add_api_route("/{sha256}", get_blob, response_class=FileResponse, responses=responses(NotFound, BadRequest))
    routes.add_api_route("/{sha256}", head_blob, methods=["HEAD"], include_in_schema=False)

    # The one handler that is a coroutine: a body is streamed to the disk, and never held.
    @routes.put("/{sha256}", status_code=201, responses=responses(BadRequest, TooLarge, StorageFull))
    async def put_blob(sha256: str, request: Request) -> Response:
        """Store a file whose sha256 this is: 201; 200 when it is there already."""
        chunks = request.stream()
        try:
            if await run_in_threadpool(hub.blobs.has, sha256):
                await drain(chunks)
                return Response(status_code=200)
            await _store(hub, sha256, chunks)
        except HubError:
            await drain(chunks)
            raise
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        return Response(status_code=201)

    return routes


def _skipped(wanted: str) -> int:
    """Bytes that a device has already, as its ``Range`` says."""
    first = wanted.removeprefix("bytes=").partition("-")[0]
    return int(first) if first.isascii() and first.isdecimal() and len(first) < 19 else 0


async def _store(hub: Hub, sha256: str, chunks: AsyncIterator[bytes]) -> None:
    writer = await run_in_threadpool(hub.blobs.writer, sha256)
    try:
        piece = bytearray()
        async for chunk in chunks:
            piece += chunk
            if len(piece) >= _PIECE:
                await run_in_threadpool(writer.write, bytes(piece))
                piece.clear()
        await run_in_threadpool(writer.write, bytes(piece))
        await run_in_threadpool(writer.commit)
    finally:
        await run_in_threadpool(writer.close)
