"""What handlers of HTTP requests answer with: JSON, an error, or later, from a thread."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from edge_agent.serving.errors import (
    BadRequest,
    Busy,
    Conflict,
    DeadlinePassed,
    Forbidden,
    ModelFailed,
    NotFound,
    NotReady,
    ServingError,
)
from edge_agent.serving.http_messages import Response

CODES: Mapping[type[ServingError], int] = {
    BadRequest: 400,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Busy: 429,
    ModelFailed: 500,
    NotReady: 503,
    DeadlinePassed: 504,
}
#: The protocol's answer where there is nothing to say.
DONE = Response(200, b"{}")

Answering = Response | Awaitable[Response]


def error_body(text: str) -> bytes:
    """An error as the protocol has it."""
    return json.dumps({"error": text}).encode()


def as_error(error: ServingError) -> Response:
    """What a client gets instead."""
    return Response(CODES[type(error)], error_body(str(error)))


def as_json(body: Any, status: int = 200) -> Response:
    """A JSON document."""
    return Response(status, json.dumps(body, separators=(",", ":")).encode())


async def aside(work: Callable[[], Response]) -> Response:
    """Run what may wait for a disk or a lock in a thread, so that predictions do not wait with it."""
    try:
        return await asyncio.get_running_loop().run_in_executor(None, work)
    except ServingError as error:
        return as_error(error)


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body holds; an empty body is an empty object.

    Raises:
        BadRequest: it holds something else.
    """
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadRequest("the body has to be a JSON object")
    return found
