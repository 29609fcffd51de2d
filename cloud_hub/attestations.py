"""What is known of how releases were made: a bill of materials and a signed provenance beside each.

They are files of their own, outside of the packages: they change no digest, and no device asks for them. Nothing in
the hub relies on what they say; they are kept for whoever verifies them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from securesystemslib.signer import Key, Signer

from cloud_hub.access import audit
from cloud_hub.blobs import storage_error, sync_folder
from cloud_hub.errors import BadRequest, Conflict, NotFound, TooLarge
from cloud_hub.records.database import Database
from cloud_hub.releases import Release, Releases
from edgeloop.package.documents import read_json
from edgeloop.package.errors import PackageError
from edgeloop.provenance import (
    Origin,
    ProvenanceError,
    bill_of_materials,
    parse,
    read,
    sign,
    statement,
    unsigned,
    verify,
)
from edgeloop.provenance.envelope import MAX_BYTES

log = logging.getLogger(__name__)

#: Kind → media type.
KINDS = {"provenance": "application/vnd.dsse.envelope.v1+json", "sbom": "application/vnd.cyclonedx+json; version=1.6"}


class Attesting(Protocol):
    """Whoever knows whose word counts about a release."""

    def keys(self, model: str, *, retrained: bool) -> Sequence[Key] | None:
        """Keys of those who may say how a release of a model was made; None where nothing is signed."""

    def trainer(self) -> Signer | None:
        """Signs for the hub's own releases; None where nothing is signed."""


class Unwitnessed:
    """An `Attesting` of a fleet without signatures."""

    def keys(self, model: str, *, retrained: bool) -> Sequence[Key] | None:
        """Anybody may."""
        return None

    def trainer(self) -> Signer | None:
        """Nobody signs."""
        return None


class Attestations:
    """The attestations of a hub's releases.

    Args:
        db: the records, for the audit log.
        folder: where they are, a folder a release.
        releases: what they are about.
        witness: says whose word counts.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        folder: Path,
        releases: Releases,
        *,
        witness: Attesting | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._folder, self._releases, self._clock = db, folder, releases, clock
        self._witness = witness or Unwitnessed()

    def put(self, digest: str, kind: str, data: bytes) -> None:
        """Keep a document; it replaces the one before, which may have lacked a signature.

        Args:
            digest: of the release.
            kind: ``provenance`` first, then ``sbom``: the former names the latter.
            data: the document.

        Raises:
            NotFound: no such release or kind.
            BadRequest: it is no such document, or one of another release.
            Conflict: it is not signed by whom it has to be, or the provenance names another bill of materials.
            TooLarge, StorageFull: there is no room.
        """
        release, path = self._releases.get(digest), self._path(digest, kind)
        if len(data) > MAX_BYTES:
            raise TooLarge(f"the {kind} has {len(data)} bytes; at most {MAX_BYTES} are kept")
        if kind == "provenance":
            self._check_provenance(release, data)
        else:
            self._check_bill(digest, data)
        self._write(path, data)
        with self._db.begin() as connection:
            after = {"kind": kind, "sha256": hashlib.sha256(data).hexdigest()}
            audit.changed(connection, "release.attest", None, after, about=digest, at=self._clock())

    def get(self, digest: str, kind: str) -> bytes:
        """A document byte for byte; raises `NotFound`."""
        self._releases.get(digest)
        try:
            return self._path(digest, kind).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"the release has no {kind}", "model-export publish sends it with the release") from error

    def kinds(self, digest: str) -> tuple[str, ...]:
        """The kinds that there are for a release."""
        return tuple(kind for kind in KINDS if self._path(digest, kind).is_file())

    def record(self, origin: Origin) -> None:
        """Write both documents of a release that this hub has made, signed by its trainer where it has a key."""
        bill = bill_of_materials(origin)
        envelope, signer = unsigned(statement(origin, bill)), self._witness.trainer()
        self._write(self._path(origin.digest, "provenance"), envelope if signer is None else sign(envelope, signer))
        self._write(self._path(origin.digest, "sbom"), bill)
        log.info("recorded how %s %s was made", origin.name, origin.version)

    def _check_provenance(self, release: Release, data: bytes) -> None:
        try:
            said = parse(read(data).payload)
            keys = self._witness.keys(release.name, retrained=release.source == "retrained")
            if keys is not None:
                verify(data, keys)
        except ProvenanceError as error:
            raise BadRequest(str(error), "send what model-export publish signs with --key") from error
        if said.digest != release.digest:
            raise BadRequest(f"this is the provenance of {said.digest}, not of {release.digest}")

    def _check_bill(self, digest: str, data: bytes) -> None:
        try:
            bill = read_json(data, "the bill of materials", max_bytes=MAX_BYTES)
        except PackageError as error:
            raise BadRequest(str(error)) from error
        if bill.get("bomFormat") != "CycloneDX":
            raise BadRequest("this is no bill of materials of CycloneDX")
        named = parse(read(self.get(digest, "provenance")).payload).bill
        if named != hashlib.sha256(data).hexdigest():
            raise Conflict("the provenance names another bill of materials", "send the one that was built with it")

    def _path(self, digest: str, kind: str) -> Path:
        if kind not in KINDS:
            raise NotFound(f"there is no attestation {kind[:40]!r}", f"there are {', '.join(KINDS)}")
        return place(self._folder, digest, kind)

    def _write(self, path: Path, data: bytes) -> None:
        new = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise storage_error(error, "an attestation") from error


def place(folder: Path, digest: str, kind: str) -> Path:
    """Where an attestation of a release is, below the folder of all of them."""
    return folder / digest.removeprefix("sha256:") / f"{kind}.json"
