"""Files of a package on their way to a hub: only those that it lacks, each once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from edgeloop.package import IndexEntry, Package
from model_export.errors import HubRefusedError, InvalidPackageError
from model_export.hub import Hub

API = "/api/v1"
JSON = {"Content-Type": "application/json"}
_CHUNK = 1 << 20


def send_missing(
    hub: Hub,
    package: Package,
    entries: Collection[IndexEntry] | None = None,
    on_file: Callable[[str, int], None] = lambda path, size: None,
) -> dict[str, int]:
    """Send what the hub lacks.

    Args:
        hub: to send to.
        package: audited.
        entries: of its files those that are sent; None: all.
        on_file: called with path and size after each file that was sent.

    Returns:
        SHA-256 → size of each file that was sent.

    Raises:
        HubUnreachableError: nobody answered, or no hub.
        HubRefusedError: the hub said no.
        InvalidPackageError: a file is not there any more.
    """
    missing = _missing(hub, package.index.to_bytes())
    sent: dict[str, int] = {}
    for entry in package.index.entries if entries is None else entries:
        if entry.sha256 in missing and entry.sha256 not in sent:
            _upload(hub, package.root / entry.path, entry.sha256, entry.size)
            sent[entry.sha256] = entry.size
            on_file(entry.path, entry.size)
    return sent


def _missing(hub: Hub, index: bytes) -> set[str]:
    try:
        answer = hub.ask("POST", f"{API}/releases/missing", content=index, headers=JSON)
    except HubRefusedError as error:
        raise hub.stranger() if error.status == 404 else error from error
    missing = answer.get("missing")
    if not isinstance(missing, list):
        raise hub.stranger()
    return {str(sha256) for sha256 in missing}


def _upload(hub: Hub, path: Path, sha256: str, size: int) -> None:
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    try:
        hub.send("PUT", f"{API}/blobs/{sha256}", lambda: {"content": _chunks(path), "headers": headers})
    except OSError as error:
        raise InvalidPackageError(f"{path} changed while it was sent: {error}", "verify the package") from error


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
