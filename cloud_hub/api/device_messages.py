"""Messages that a device sends over HTTP since they are too large for MQTT: the same bytes, and only its own."""

from __future__ import annotations

from typing import Any, TypeVar

from cloud_hub.access.principals import Principal
from cloud_hub.errors import BadRequest, Forbidden
from edgeloop.protocol import Escalation, ProtocolError, Sample

CBOR = "application/cbor"
OCTETS: dict[str, Any] = {"content": {CBOR: {"schema": {"type": "string", "format": "binary"}}}}

_Sent = TypeVar("_Sent", Escalation, Sample)


def in_openapi(message: str) -> dict[str, Any]:
    """The request's body in the API's description; ``message`` names what it holds, with its article."""
    return {"requestBody": {"required": True, "description": f"{message}, see asyncapi.yaml.", **OCTETS}}


def own(kind: type[_Sent], payload: bytes, asker: Principal) -> _Sent:
    """The message, when it names the device that sent it.

    Raises:
        BadRequest: it is none.
        Forbidden: it names another device than the certificate.
    """
    try:
        message = kind.from_bytes(payload)
    except ProtocolError as error:
        raise BadRequest(f"this is no {kind.__name__.lower()}: {error}", "see docs/reference/asyncapi.yaml") from error
    if asker.kind == "device" and asker.name != message.device:
        raise Forbidden(f"the message names {message.device!r}, the certificate {asker.name!r}")
    return message
