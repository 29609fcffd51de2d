"""One small request to the hub over HTTPS, with the standard library alone: a device asks once in weeks."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from edgeloop.records import dataclass

#: The hub may have to ask an authority elsewhere, which may take a minute.
TIMEOUT_S = 90.0
MAX_ANSWER_BYTES = 1 << 20


class HubRefuses(Exception):
    """The hub answered, and not with what was asked for; the message is the hub's.

    Args:
        status: of HTTP.
        message: why.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HubAway(Exception):
    """The hub cannot be reached, or is not the one that is asked for."""


@dataclass(frozen=True)
class HubAnswer:
    """What the hub said.

    Attributes:
        body: of the answer.
        date: its clock, as HTTP has it, or "".
    """

    body: bytes
    date: str

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; raises `HubRefuses`."""
        try:
            found = json.loads(self.body)
        except ValueError as error:
            raise HubRefuses(200, "the hub's answer is no JSON; is this the address of a hub?") from error
        if not isinstance(found, dict):
            raise HubRefuses(200, "the hub's answer is no JSON object; is this the address of a hub?")
        return found


def ask(hub: str, method: str, path: str, context: ssl.SSLContext, body: Any = None) -> HubAnswer:
    """Ask the hub; no redirection is followed.

    Args:
        hub: base URL, https.
        method: of HTTP.
        path: below the base.
        context: whom to trust, and as whom to ask.
        body: is sent as JSON, unless None.

    Raises:
        HubAway: no answer.
        HubRefuses: an answer that is no success.
    """
    url = urlsplit(hub)
    if url.scheme != "https" or not url.hostname:
        raise HubAway(f"{hub} is no https:// address")
    try:
        connection = http.client.HTTPSConnection(url.hostname, url.port or 443, timeout=TIMEOUT_S, context=context)
        try:
            sent = None if body is None else json.dumps(body).encode()
            headers = {} if sent is None else {"Content-Type": "application/json"}
            connection.request(method, url.path.rstrip("/") + path, sent, headers)
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER_BYTES + 1)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HubAway(f"the hub at {hub} cannot be reached: {error or type(error).__name__}") from error
    if len(data) > MAX_ANSWER_BYTES:
        raise HubRefuses(answer.status, f"the hub's answer is longer than {MAX_ANSWER_BYTES:,} bytes")
    if answer.status not in (200, 201, 204):
        raise HubRefuses(answer.status, _reason(answer.status, data))
    return HubAnswer(data, answer.headers.get("Date", ""))


def _reason(status: int, data: bytes) -> str:
    try:
        said = json.loads(data)
        hint = f" ({said['hint']})" if said.get("hint") else ""
        return f"{said['error']}{hint}"[:1000]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"the hub answers with HTTP {status}"
