"""What HTTP makes of the hub's errors: a status, and ``{"error": …, "hint": …}``."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from cloud_hub.errors import (
    AuthorityError,
    BadRequest,
    Conflict,
    Forbidden,
    HubError,
    NotFound,
    StorageFull,
    TooLarge,
    Unauthorized,
)

log = logging.getLogger(__name__)

STATUS: dict[type[HubError], int] = {
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    BadRequest: 422,
    AuthorityError: 502,
    StorageFull: 507,
}


#: Where the description of the API has `Problem`.
PROBLEM = "#/components/schemas/Problem"


class Problem(BaseModel):
    """The body of every answer that is not a success."""

    error: str = Field(description="What is wrong.", examples=["there is no release sha256:00…"])
    hint: str = Field(description="What to do about it.", examples=["GET /api/v1/releases lists them"])


def responses(*errors: type[HubError]) -> dict[int | str, dict[str, object]]:
    """OpenAPI's entries for the errors that a handler raises."""
    return {STATUS[error]: answers((error.__doc__ or "").strip()) for error in errors}


def answers(description: str) -> dict[str, object]:
    """OpenAPI's entry for a `Problem`. Named and not given as a model, of which FastAPI makes a validator an entry."""
    return {"description": description, "content": {"application/json": {"schema": {"$ref": PROBLEM}}}}


def problem(status: int, error: str, hint: str = "") -> JSONResponse:
    """An answer that is not a success."""
    return JSONResponse({"error": error, "hint": hint}, status_code=status)


def install(app: FastAPI) -> None:
    """Make ``app`` answer errors in one form."""

    @app.exception_handler(HubError)
    def _(_request: Request, error: HubError) -> JSONResponse:
        status = next((STATUS[root] for root in type(error).__mro__ if root in STATUS), 500)
        return problem(status, str(error), error.hint)

    @app.exception_handler(RequestValidationError)
    def _(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return problem(422, f"the request is refused: {found}", "see /docs for the form of every request")

    @app.exception_handler(HTTPException)
    def _(_request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), "see /docs for every address")

    @app.exception_handler(SQLAlchemyError)
    def _(_request: Request, error: SQLAlchemyError) -> JSONResponse:
        return records_unusable(error)


def records_unusable(error: SQLAlchemyError) -> JSONResponse:
    """The answer while the records cannot be read or written; what is wrong is for the log alone."""
    log.error("the records cannot be used: %s", error)
    return problem(503, "the hub's records cannot be used now", "see the hub's log; check its disk, then repeat")
