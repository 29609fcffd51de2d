"""An address that gets every result by POST, after the Standard Webhooks specification.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: ``webhook-id`` is the
prediction's id and the same at every try, so that a receiver can drop what it has; ``webhook-signature`` is
``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from edge_agent.flow_settings import WebhookSinkSettings
from edge_agent.flows.ports import Result
from edge_agent.flows.sinks.spooled import Refused, Undelivered
from edgeloop import __version__

#: Answers that are about the document itself; with any other one it is tried again, since somebody may mend it.
NEVER = frozenset({400, 413, 415, 422})
#: Of an answer no more is read, bytes.
MOST_ANSWER = 64 << 10


class Webhook:
    """Implements `edge_agent.flows.sinks.spooled.Carrier`; one connection that is used again.

    Args:
        settings: see docs/reference/flows.md.
        clock: unix seconds.
    """

    def __init__(self, settings: WebhookSinkSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        url = urlsplit(settings.url)
        self._host, self._port, self._secure = url.hostname or "", url.port, url.scheme == "https"
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._key = None if settings.secret is None else base64.b64decode(settings.secret.removeprefix("whsec_"))
        self._connection: http.client.HTTPConnection | None = None

    def open(self, wake: Callable[[], None]) -> None:
        """Nothing yet: the first result connects."""

    def deliver(self, result: Result) -> None:
        """POST it."""
        used_before = self._connection is not None
        try:
            status = self._post(result)
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            # An idle connection may have been closed by the other side: that says nothing about it.
            if used_before and isinstance(error, ConnectionError | http.client.RemoteDisconnected):
                self.deliver(result)
                return
            raise Undelivered(f"{self._host}: {error or type(error).__name__}") from error
        if status in NEVER:
            raise Refused(f"{self._host} answered {status}")
        if not 200 <= status < 300:
            raise Undelivered(f"{self._host} answered {status}")

    def close(self, timeout_s: float) -> None:
        """Hang up."""
        self._hang_up()

    def signed(self, identity: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The specification's headers.

        Args:
            identity: of the message.
            timestamp: unix seconds.
            body: of the request.
        """
        headers = {"webhook-id": identity, "webhook-timestamp": str(timestamp)}
        if self._key is not None:
            digest = hmac.new(self._key, f"{identity}.{timestamp}.".encode() + body, hashlib.sha256).digest()
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return headers

    def _post(self, result: Result) -> int:
        connection = self._connection
        if connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = self._connection = kind(self._host, self._port, timeout=self._settings.timeout_s)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"edgeloop/{__version__}",
            **(self._settings.headers or {}),
            **self.signed(_plain(result.id), int(self._clock()), result.document),
        }
        connection.request("POST", self._path, result.document, headers)
        answer = connection.getresponse()
        if len(answer.read(MOST_ANSWER)) == MOST_ANSWER or answer.will_close:
            self._hang_up()
        return answer.status

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _plain(identity: str) -> str:
    """An id that may stand in a header: a client's may be any text."""
    if re.fullmatch(r"[!-~]{1,256}", identity):
        return identity
    return f"sha256-{hashlib.sha256(identity.encode(errors='surrogatepass')).hexdigest()}"
