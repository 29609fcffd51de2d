"""The child that verifies: python-tuf's client on what a message carried, and on what the hub adds.

A child, for two reasons. Libraries of signatures cost 11 MB of memory once they are imported, which a device would pay
for as long as it runs, to use them for some milliseconds a week. And what is parsed here was sent by anybody: a process
with bounds of its own takes the damage. A request comes as a line of JSON on standard input, its verdict leaves as
one on standard output; bytes are base64.

Times are not judged here: the parent does, by `edge_agent.trust.judging`, which can then look again when its clock has
been set.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signature
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient import Updater, UpdaterConfig

from edge_agent.identity import load, tls_context
from edge_agent.trust.fetcher import CarriedFetcher, Limits
from edgeloop.trust.names import CHANNELS, TIMESTAMP, TOP_LEVEL

#: Memory that the child may use; a message of the largest size and its parsed form fit.
CHILD_MEMORY_BYTES = 1 << 30
#: A metadata file has no more, carried or not (`edgeloop.protocol.SignedChannel`).
MAX_BYTES = 512_000
#: Roots that are followed in one go: four rotations a month since a device was last on.
MOST_ROOTS = 64


class DeviceUpdater(Updater):
    """The client, with eyes for what it has found. It takes no metadata for expired: the parent judges times."""

    def __init__(self, request: Mapping[str, Any], fetcher: CarriedFetcher) -> None:
        """Load the root that the device was enrolled with; nothing in the cache is believed without it."""
        cache = Path(request["cache"])
        cache.mkdir(parents=True, exist_ok=True)
        config = UpdaterConfig(
            max_root_rotations=MOST_ROOTS,
            root_max_length=MAX_BYTES,
            snapshot_max_length=MAX_BYTES,
            targets_max_length=MAX_BYTES,
        )
        root, base = b64decode(request["root"]), f"{request['hub']}/tuf/"
        super().__init__(str(cache), base, fetcher=fetcher, config=config, bootstrap=root)
        self._trusted_set.reference_time = datetime.min.replace(tzinfo=UTC)

    def roles(self) -> dict[str, dict[str, Any]]:
        """Of each role: its keys, the version that was read or None, the one that the snapshot lists or None."""
        trusted = self._trusted_set
        delegations = trusted.targets.delegations
        delegated = {} if delegations is None else delegations.roles or {}
        found: dict[str, dict[str, Any]] = {}
        for name, role in (*((name, trusted.root.roles[name]) for name in TOP_LEVEL), *delegated.items()):
            listed = trusted.snapshot.meta.get(f"{name}.json")
            read = trusted.get(name)
            found[name] = {
                "keyids": sorted(role.keyids),
                "version": None if read is None else read.version,
                "listed": None if listed is None else listed.version,
                "expires": None if read is None else read.expires.timestamp(),
            }
        return found

    def named(self, paths: Iterable[str]) -> dict[str, Any]:
        """What the roles name at each path: length and SHA-256, or the problem, and whether it may pass."""
        found: dict[str, Any] = {}
        for path in paths:
            try:
                target = self.get_targetinfo(path)
            except (RepositoryError, DownloadError) as error:
                found[path] = {"problem": str(error), "again": isinstance(error, DownloadError)}
                continue
            if target is None or "sha256" not in target.hashes:
                found[path] = {"problem": "no role names it", "again": False}
            else:
                found[path] = {"length": target.length, "sha256": target.hashes["sha256"]}
        return found

    def signed_by_channels(self, document: bytes, signature: bytes) -> bool:
        """Whether one of the keys that ``channels`` has signed a document."""
        delegations = self._trusted_set.targets.delegations
        if delegations is None or delegations.roles is None or CHANNELS not in delegations.roles:
            return False
        for keyid in delegations.roles[CHANNELS].keyids:
            try:
                delegations.keys[keyid].verify_signature(Signature(keyid, signature.hex()), document)
            except (UnverifiedSignatureError, VerificationError, KeyError):
                continue
            return True
        return False


def examine(request: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict: what was found, or ``refused`` with the reason and whether trying again can help."""
    started, first = time.perf_counter(), ""
    for carried, ask_for_root in _attempts(request):
        limits, identity = Limits(**request["limits"]), request["identity"]
        fetcher = CarriedFetcher(carried, limits, ask_for_root=ask_for_root, tls=partial(_tls, identity))
        try:
            updater = DeviceUpdater(request, fetcher)
            updater.refresh()
            signed = request["signed"]
            if signed is not None and not updater.signed_by_channels(*map(b64decode, signed)):
                raise RepositoryError("it is not signed by a key of the channels role")
            named = updater.named(request["paths"])
            return {
                "roles": updater.roles(),
                "named": named,
                "fetched": fetcher.fetched,
                "ms": 1e3 * (time.perf_counter() - started),
            }
        except RepositoryError as error:
            first = first or str(error)
        except DownloadError as error:
            told = f"{first}; and a newer root cannot be had: {error}" if first else str(error)
            return {"refused": told, "again": True}
        except OSError as error:
            return {"refused": f"metadata cannot be written: {error}", "again": True}
    return {"refused": first, "again": False}


def _tls(data: str | None) -> ssl.SSLContext:
    """As the device speaks to its hub; as anybody where it has no identity."""
    identity = None if data is None else load(Path(data))
    return ssl.create_default_context() if identity is None else tls_context(identity)


def _attempts(request: Mapping[str, Any]) -> Iterator[tuple[dict[str, bytes], bool]]:
    """What is believed to be the newest, then what the hub says it is: files at hand, and whether a root is asked for.

    A document that carries no metadata of its own is first held against what was found last.
    """
    carried = {name: b64decode(data) for name, data in request["metadata"].items()}
    latest = Path(request["cache"]) / f"{TIMESTAMP}.json"
    if not request["ask_for_root"]:
        if request["signed"] is not None and latest.is_file():
            yield {latest.name: latest.read_bytes()[:MAX_BYTES]}, False
        else:
            yield carried, False
    yield carried, True


def main() -> int:
    """A verdict for each request, a line each, until there is nobody who could ask."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY_BYTES, CHILD_MEMORY_BYTES))
    for request in sys.stdin.buffer:
        print(json.dumps(examine(json.loads(request))), flush=True)
    return 0
