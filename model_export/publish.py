"""Sending a package to a hub: only the files that it lacks, again where the network failed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from edgeloop.package import Package
from model_export.errors import HubRefusedError, HubUnreachableError, InvalidPackageError

#: Tries of one request, with a pause that doubles from `PAUSE_S` and is jittered.
TRIES, PAUSE_S = 4, 0.5
CONNECT_TIMEOUT_S, TIMEOUT_S = 5.0, 60.0
_CHUNK = 1 << 20
#: The hub is there and cannot answer now.
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Published:
    """What happened.

    Attributes:
        digest: of the release.
        rollout: id of the rollout that the channel started; None where the release became current at once.
        serial: of the channel document.
        files_sent, bytes_sent: what the hub lacked.
        files, bytes: the whole package.
    """

    digest: str
    name: str
    version: str
    channel: str
    rollout: str | None
    serial: int
    files_sent: int
    bytes_sent: int
    files: int
    bytes: int


def publish(
    package: Package,
    hub: str,
    channel: str,
    *,
    on_file: Callable[[str, int], None] = lambda path, size: None,
    client: httpx.Client | None = None,
    pause_s: float = PAUSE_S,
) -> Published:
    """Make a package a release of a hub, and give it to a channel.

    Safe to repeat: what the hub has is not sent again, and a release is identified by its digest.

    Args:
        package: audited.
        hub: base address, ``http://host:port``.
        channel: name of the channel.
        on_file: called with path and size after each file that was sent.
        client: for tests and for proxies; by default one with this module's time limits.
        pause_s: first pause between tries.

    Raises:
        HubUnreachableError: nobody answered, or no hub.
        HubRefusedError: the hub said no; the message carries its reason.
    """
    own = client or httpx.Client(timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S))
    try:
        return _Publisher(own, hub.rstrip("/") + "/api/v1", pause_s).run(package, channel, on_file)
    finally:
        if client is None:
            own.close()


class _Publisher:
    def __init__(self, client: httpx.Client, base: str, pause_s: float) -> None:
        self._client, self._base, self._pause_s = client, base, pause_s

    def run(self, package: Package, channel: str, on_file: Callable[[str, int], None]) -> Published:
        index = package.index.to_bytes()
        missing = self._missing(index)
        sent: dict[str, int] = {}
        for entry in package.index.entries:
            if entry.sha256 in missing and entry.sha256 not in sent:
                self._upload(package.root / entry.path, entry.sha256, entry.size)
                sent[entry.sha256] = entry.size
                on_file(entry.path, entry.size)
        release = self._post("/releases", content=index)
        assigned = self._post(f"/channels/{quote(channel, safe='')}/releases", json={"digest": release["digest"]})
        return Published(
            digest=str(release["digest"]),
            name=package.name,
            version=package.version,
            channel=channel,
            rollout=assigned.get("rollout"),
            serial=int(assigned.get("serial", 0)),
            files_sent=len(sent),
            bytes_sent=sum(sent.values()),
            files=len(package.index.entries),
            bytes=sum(entry.size for entry in package.index.entries),
        )

    def _missing(self, index: bytes) -> set[str]:
        answer = self._post("/releases/missing", content=index)
        missing = answer.get("missing")
        if not isinstance(missing, list):
            raise HubUnreachableError(
                f"{self._base} answers, but not as a hub does", "check the address given with --hub"
            )
        return {str(sha256) for sha256 in missing}

    def _upload(self, path: Path, sha256: str, size: int) -> None:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        try:
            self._try("PUT", f"/blobs/{sha256}", lambda: {"content": _chunks(path), "headers": headers})
        except OSError as error:
            raise InvalidPackageError(
                f"{path} changed while it was published: {error}", "verify the package"
            ) from error

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        if "content" in body:
            body["headers"] = {"Content-Type": "application/json"}
        response = self._try("POST", path, lambda: body)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise HubUnreachableError(
                f"{self._base} answers, but not as a hub does", "check the address given with --hub"
            )
        return answer

    def _try(self, method: str, path: str, request: Callable[[], dict[str, Any]]) -> httpx.Response:
        """One request, tried again when the network or the hub fails for a moment."""
        last = ""
        for attempt in range(TRIES):
            if attempt:
                # Jitter, so that publishers that a hub's restart cut off do not come back all at once.
                time.sleep(self._pause_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            try:
                response = self._client.request(method, self._base + path, **request())
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise HubUnreachableError(
                    f"{self._base} is no address of a hub: {error}", "http://host:port"
                ) from error
            except httpx.TransportError as error:
                last = f"{type(error).__name__}: {error}"
                continue
            if response.status_code in _AGAIN:
                last = f"it answered {response.status_code}: {_reason(response)}"
                continue
            if response.is_success:
                return response
            raise _refusal(self._base, method, path, response)
        raise HubUnreachableError(
            f"no hub could be reached at {self._base} in {TRIES} tries; last: {last}",
            "check the address and that the hub runs (cloud-hub serve), then repeat: only what is missing is sent",
        )


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _refusal(base: str, method: str, path: str, response: httpx.Response) -> HubRefusedError | HubUnreachableError:
    text, hint = _reason(response), ""
    try:
        body = response.json()
        hint = str(body.get("hint", "")) if isinstance(body, dict) else ""
    except ValueError:
        pass
    if response.status_code == 404 and path == "/releases/missing":
        return HubUnreachableError(f"{base} answers, but not as a hub does", "check the address given with --hub")
    return HubRefusedError(f"the hub refused {method} {path} ({response.status_code}): {text}", hint)


def _reason(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return response.text[:300] or response.reason_phrase
    if isinstance(body, dict):
        return str(body.get("error") or body.get("detail") or body)[:600]
    return str(body)[:600]
