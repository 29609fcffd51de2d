"""The description of the API: what the application's own knows nothing of, since the guard answers before it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from cloud_hub.access import rights
from cloud_hub.api.errors import Problem, answers

_METHODS = frozenset({"get", "put", "post", "delete", "patch"})
_ALWAYS = {
    "429": "Too many requests, or too many wrong credentials; Retry-After says how long to wait.",
    "503": "The records, or the identity provider, cannot be asked now.",
}
_KNOWN = {
    "401": "No credentials, or wrong ones.",
    "403": "The caller's role, or what it is limited to, does not allow it.",
}
_WITH_BODY = {"400": "The body is no text at all.", "413": "The body is too large."}
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of the hub, or a JWT of its issuer."},
    "device": {"type": "mutualTLS", "description": "The certificate of a device."},
}


def describe(app: FastAPI) -> None:
    """Have the application's description tell who may use each address, and how the guard refuses."""
    own = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(own())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _completed(schema: dict[str, Any]) -> dict[str, Any]:
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if method in _METHODS:
                _complete(operation, rights.TABLE.get((method.upper(), path)))
    components = schema["components"]
    components["securitySchemes"] = _SCHEMES
    components["schemas"]["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):  # the hub answers with a Problem
        components["schemas"].pop(name, None)
    return schema


def _complete(operation: dict[str, Any], right: rights.Right | None) -> None:
    told = dict(_ALWAYS)
    if right is None or not right.anyone:
        told |= _KNOWN
        operation["security"] = [{"token": []}, *([{"device": []}] if right is not None and right.device else [])]
        who = "nobody" if right is None else right.sentence
        operation["description"] = f"{operation.get('description', '')}\n\nWho may: {who}.".strip()
    if "requestBody" in operation:
        told |= _WITH_BODY
    responses = operation["responses"]
    for status, description in told.items():
        responses.setdefault(status, answers(description))
    if "422" in responses:
        responses["422"]["content"] = answers("")["content"]
