"""A hub as its client sees it: one request, tried again when the network or the hub fails for a moment."""

from __future__ import annotations

import ipaddress
import random
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from model_export.errors import HubRefusedError, HubUnreachableError, RequestError

#: Tries of one request, with a pause that doubles from `PAUSE_S` and is jittered.
TRIES, PAUSE_S = 4, 0.5
CONNECT_TIMEOUT_S, TIMEOUT_S = 5.0, 60.0
#: Bytes of an answer that are read (the sha256 of every file that a release can have take a tenth), and seconds for it.
MAX_ANSWER_BYTES, ANSWER_S = 16 << 20, 60.0
#: The hub is there and cannot answer now.
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class Hub:
    """The HTTP interface of a hub.

    Args:
        address: base address, ``https://host:port``.
        token: an API token; "" for none.
        ca_cert: the CA that the hub's certificate has to come from; None for those of the system.
        pause_s: first pause between tries.

    Raises:
        RequestError: the CA's file cannot be read, or a token would cross a network in clear text.
    """

    def __init__(self, address: str, *, token: str = "", ca_cert: Path | None = None, pause_s: float = PAUSE_S) -> None:
        self.address, self._pause_s, self._token = address.rstrip("/"), pause_s, token
        if token and not _is_private(self.address):
            raise RequestError(
                f"a token would be sent to {self.address} in clear text", "give the https:// address of the hub"
            )
        self._client = httpx.Client(
            timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            verify=_trusting(ca_cert) if ca_cert or self.address.startswith("https:") else False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """A request whose answer is a JSON object; raises as `send` does."""
        try:
            answer = self.send(method, path, lambda: request).json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self.stranger()
        return answer

    def fetch(self, path: str) -> bytes | None:
        """The bytes at a path; None where there is nothing."""
        try:
            return self.send("GET", path, dict).content
        except HubRefusedError as error:
            if error.status == 404:
                return None
            raise

    def put(self, path: str, content: bytes) -> None:
        """Send a JSON document, byte for byte; raises as `send` does."""
        self.send("PUT", path, lambda: {"content": content, "headers": {"Content-Type": "application/json"}})

    def stranger(self) -> HubUnreachableError:
        """The error for an answer that no hub gives."""
        return HubUnreachableError(
            f"{self.address} answers, but not as a hub does", "check the address given with --hub"
        )

    def send(self, method: str, path: str, request: Callable[[], dict[str, Any]]) -> httpx.Response:
        """One request, and its successful answer.

        Args:
            method: of HTTP.
            path: from the root, ``/api/v1/…``.
            request: gives the arguments of httpx for each try; a body that is a stream begins anew.

        Raises:
            HubUnreachableError: nobody answered.
            HubRefusedError: the hub said no; the message carries its reason.
        """
        last = ""
        for attempt in range(TRIES):
            if attempt:
                # Jitter, so that publishers that a hub's restart cut off do not come back all at once.
                time.sleep(self._pause_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            try:
                with self._client.stream(method, self.address + path, **request()) as answer:
                    response = httpx.Response(answer.status_code, content=self._read(answer))
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise HubUnreachableError(
                    f"{self.address} is no address of a hub: {error}", "https://host:port"
                ) from error
            except httpx.TransportError as error:
                if _unverified(error):
                    raise HubUnreachableError(
                        f"the certificate of {self.address} is not one of a CA that is trusted here: {error}",
                        "give the hub's CA with --ca-cert or MODEL_EXPORT_CA_CERT",
                    ) from error
                last = f"{type(error).__name__}: {error}"
                continue
            if response.status_code in _AGAIN:
                last = f"it answered {response.status_code}: {_reason(response)}"
                continue
            if response.is_success:
                return response
            raise self._refusal(method, path, response)
        raise HubUnreachableError(
            f"no hub could be reached at {self.address} in {TRIES} tries; last: {last}",
            "check the address and that the hub runs (cloud-hub serve), then repeat: only what is missing is sent",
        )

    def _read(self, answer: httpx.Response) -> bytes:
        """The answer's body, bounded in size and time: whoever stands before a hub could send one without end."""
        body, until = bytearray(), time.monotonic() + ANSWER_S
        for chunk in answer.iter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES or time.monotonic() > until:
                raise HubUnreachableError(
                    f"{self.address} sends an answer that is no hub's: {len(body)} bytes and no end",
                    "check the address given with --hub",
                )
        return bytes(body)

    def _refusal(self, method: str, path: str, response: httpx.Response) -> HubRefusedError:
        hint = ""
        try:
            body = response.json()
            hint = str(body.get("hint") or "") if isinstance(body, dict) else ""
        except ValueError:
            pass
        if response.status_code == 401 and not self._token:
            hint = "give an API token with MODEL_EXPORT_TOKEN; cloud-hub tokens create makes one"
        text = f"the hub refused {method} {path} ({response.status_code}): {_reason(response)}"
        return HubRefusedError(text, hint, response.status_code)


def _trusting(ca_cert: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca_cert is None else str(ca_cert))
    except (OSError, ssl.SSLError) as error:
        raise RequestError(f"{ca_cert} is no certificate of a CA in PEM: {error}", "--ca-cert FILE") from error


def _is_private(address: str) -> bool:
    """Whether nobody between here and the address can read along: TLS, or this machine itself."""
    try:
        parts = urlsplit(address)
        if parts.scheme == "https" or parts.hostname == "localhost":
            return True
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _unverified(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return response.text[:300] or response.reason_phrase
    if isinstance(body, dict):
        return str(body.get("error") or body.get("detail") or body)[:600]
    return str(body)[:600]
