"""Releases: published, immutable packages, each a real folder of hard links to blobs.

Publishing is idempotent: the same index gives the same release, however often it is sent, and whatever the hub was
doing when it was stopped.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, select

from cloud_hub.access import audit
from cloud_hub.access.principals import acting
from cloud_hub.blobs import Blobs, storage_error, sync_folder
from cloud_hub.errors import BadRequest, Conflict, HubError, NotFound
from cloud_hub.records.database import Database
from cloud_hub.records.tables import releases as table
from edgeloop.insights import InsightsError, Profile, WindowSchema
from edgeloop.package import Index, Manifest, Package, PackageError, audit_in_child
from edgeloop.protocol import ReleaseRef

#: The largest index that is read; a device reads no more either (protocol.ReleaseRef.index_size).
MAX_INDEX_BYTES = 4 << 20
_CACHED_PACKAGES = 32
#: Of a package that does not say how many it has.
MAX_CLASSES = 1 << 31


def _audit(root: Path, index: Index) -> Manifest:
    """In a child process, since the package may be hostile; the folder is of our own hard links to blobs."""
    return audit_in_child(root, index=index, allow_hard_links=True)


@dataclass(frozen=True)
class Release:
    """A published package.

    Attributes:
        digest: ``sha256:…`` of its index.
        name: the package's name.
        version: the package's version.
        parent: digest of the release that it was made from, or None.
        source: ``published`` for one that came from outside, ``retrained`` for the hub's own.
        created: unix seconds.
        size: bytes of all its files.
        index_size: bytes of its index.
        metrics: variant → metrics, as its manifest says.
        lineage: where it comes from, as its manifest says.
        published_by: who sent it, as the audit log names them; "" for one that is older than the log.
    """

    digest: str
    name: str
    version: str
    parent: str | None
    source: str
    created: float
    size: int
    index_size: int
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]
    published_by: str = ""

    @property
    def ref(self) -> ReleaseRef:
        """The release as channel documents name it."""
        return ReleaseRef(digest=self.digest, name=self.name, version=self.version, index_size=self.index_size)


class Releases:
    """The releases of a hub.

    Args:
        db: the records.
        blobs: where the files are.
        folder: where each release is laid out as a package folder; on the same file system as the blobs.
        audit: checks a package folder against its index and returns its manifest, or raises `PackageError`.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        blobs: Blobs,
        folder: Path,
        *,
        audit: Callable[[Path, Index], Manifest] = _audit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._blobs, self._folder, self._audit, self._clock = db, blobs, folder, audit, clock
        self._publishing = threading.Lock()
        self._open = lru_cache(_CACHED_PACKAGES)(self._open_folder)
        self._profile = lru_cache(_CACHED_PACKAGES)(self._read_profile)
        self._incoming = folder / "incoming"
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    def missing(self, index: bytes) -> tuple[str, tuple[str, ...]]:
        """The digest of an index, and the sha256 of each file that the hub lacks, each once, in the index's order.

        Raises:
            BadRequest: the bytes are no index.
        """
        parsed = parse_index(index)
        wanted = dict.fromkeys(entry.sha256 for entry in parsed.entries)
        return parsed.digest, tuple(sha256 for sha256 in wanted if not self._blobs.has(sha256))

    def publish(
        self, index: bytes, *, source: str = "published", check: Callable[[str], None] = lambda _model: None
    ) -> Release:
        """Make a release of blobs that are there: lay it out, audit it, record it.

        Args:
            index: the index's bytes, canonical.
            source: ``published`` or ``retrained``.
            check: is given the model's name, and raises where the caller may not publish it.

        Raises:
            BadRequest: the index or the package is not what it has to be; nothing is recorded.
            Conflict: blobs are missing.
            StorageFull: the disk is full.
        """
        parsed = parse_index(index)
        with self._publishing:
            if (present := self._find(parsed.digest)) is not None:
                check(present.name)
                return present
            root = self._lay_out(parsed)
            try:
                manifest = self._check(root, parsed)
                check(manifest.name)
                place = self._place(parsed.digest)
                shutil.rmtree(place, ignore_errors=True)  # of a hub that was stopped before it recorded the release
                root.replace(place)
                sync_folder(self._folder)
            except OSError as error:
                raise storage_error(error, "the release") from error
            finally:
                shutil.rmtree(root, ignore_errors=True)
            self._record(parsed, manifest, source)
        return self.get(parsed.digest)

    def create(self, package: Path) -> Release:
        """Make a release of a package folder that the hub itself wrote; errors as in :meth:`publish`."""
        index = Index.of_folder(package)
        for entry in index.entries:
            if not self._blobs.has(entry.sha256):
                self._blobs.put_file(package / entry.path, entry.sha256)
        return self.publish(index.to_bytes(), source="retrained")

    def get(self, digest: str) -> Release:
        """The release with this digest.

        Raises:
            NotFound: there is none.
        """
        if (release := self._find(digest)) is None:
            raise NotFound(f"there is no release {digest[:80]}", "GET /api/v1/releases lists them")
        return release

    def all(self) -> list[Release]:
        """All releases, newest first."""
        with self._db.read() as connection:
            return every(connection)

    def count(self) -> int:
        """Number of releases."""
        with self._db.read() as connection:
            return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    def index_bytes(self, digest: str) -> bytes:
        """The index as it was published; raises `NotFound`."""
        with self._db.read() as connection:
            found = connection.execute(select(table.c.index_bytes).where(table.c.digest == digest)).scalar()
        if found is None:
            self.get(digest)
            raise AssertionError("a release without an index")
        return bytes(found)

    def lineage(self, digest: str) -> list[Release]:
        """The release and its ancestors, nearest first, as far as this hub knows them; raises `NotFound`."""
        found = [self.get(digest)]
        seen = {digest}
        while (parent := found[-1].parent) is not None and parent not in seen:
            seen.add(parent)
            if (release := self._find(parent)) is None:
                break
            found.append(release)
        return found

    def open(self, digest: str) -> Package:
        """The release's package folder, opened; the folder is never written. Raises `NotFound`."""
        self.get(digest)
        return self._open(digest)

    def profile(self, digest: str) -> Profile | None:
        """The release's profile, or None when it has none; raises `NotFound`."""
        self.get(digest)
        return self._profile(digest)

    def schema(self, digest: str) -> WindowSchema | None:
        """The schema of the release's windows; None for an unknown release, or one without a profile."""
        if self._find(digest) is None:
            return None
        profile = self._profile(digest)
        return None if profile is None else profile.schema

    def classes(self, digest: str) -> tuple[tuple[str, ...], int]:
        """(names, number) of the classes that a release tells apart, names () where it has none; raises `NotFound`."""
        meta = self.open(digest).meta
        shapes = [output.shape for output in meta.outputs if output.role in ("probabilities", "logits")]
        widths = [shape[-1] for shape in shapes if shape and shape[-1] > 0]
        return meta.labels, len(meta.labels) or (widths[0] if widths else MAX_CLASSES)

    def drop_unused(self, files: Collection[str]) -> None:
        """Let go of blobs, by their sha256, that are no release's."""
        with self._publishing, self._db.read() as connection:
            unused = set(files)
            for index in connection.execute(select(table.c.index_bytes)).scalars():
                unused -= {entry.sha256 for entry in parse_index(bytes(index)).entries}
            for sha256 in unused:
                self._blobs.remove(sha256)

    def _lay_out(self, index: Index) -> Path:
        absent = [entry.path for entry in index.entries if not self._blobs.has(entry.sha256)]
        if absent:
            raise Conflict(
                f"{len(absent)} files of the release were not sent, such as {absent[0]}",
                "POST /api/v1/releases/missing names them; PUT each to /api/v1/blobs/<sha256>, then repeat",
            )
        root = self._incoming / index.digest.removeprefix("sha256:")
        shutil.rmtree(root, ignore_errors=True)
        try:
            for entry in index.entries:
                if self._blobs.size(entry.sha256) != entry.size:
                    raise BadRequest(f"the index gives a wrong size for {entry.path}: build the index again")
                target = root / entry.path  # Index.parse has refused every path that leaves the folder
                target.parent.mkdir(parents=True, exist_ok=True)
                self._blobs.link(entry.sha256, target)
        except (OSError, HubError) as error:
            shutil.rmtree(root, ignore_errors=True)
            if isinstance(error, HubError):
                raise
            raise storage_error(error, "the release") from error
        return root

    def _check(self, root: Path, index: Index) -> Manifest:
        try:
            manifest = self._audit(root, index)
            profile = Package.open(root, index=index).profile()
            if profile is not None:
                profile.reference.merge(profile.reference)  # a reference that cannot be merged is found here, not later
        except PackageError as error:
            raise BadRequest(
                "the package is refused: " + "; ".join(error.problems or (str(error),)),
                "model-export verify shows the same on your machine",
            ) from error
        except InsightsError as error:
            raise BadRequest(f"the package's profile is refused: {error}", "build the package again") from error
        return manifest

    def _record(self, index: Index, manifest: Manifest, source: str) -> None:
        now = self._clock()
        with self._db.begin() as connection:
            connection.execute(
                table.insert().values(
                    digest=index.digest,
                    name=manifest.name,
                    version=manifest.version,
                    parent=_parent(manifest.meta.lineage),
                    source=source,
                    created=now,
                    size=sum(entry.size for entry in index.entries),
                    index_bytes=index.to_bytes(),
                    metrics_json=json.dumps(manifest.meta.metrics),
                    lineage_json=json.dumps(manifest.meta.lineage),
                    published_by=str(acting()),
                )
            )
            after = {"model": manifest.name, "version": manifest.version, "source": source}
            audit.changed(connection, "release.publish", None, after, about=index.digest, at=now)

    def _find(self, digest: str) -> Release | None:
        with self._db.read() as connection:
            return find(connection, digest)

    def _place(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")

    def _open_folder(self, digest: str) -> Package:
        place, index = self._place(digest), parse_index(self.index_bytes(digest))
        if not place.is_dir():  # a data folder restored without its releases: the blobs are enough
            self._lay_out(index).replace(place)
        return Package.open(place, index=index)

    def _read_profile(self, digest: str) -> Profile | None:
        return self._open(digest).profile()


def find(connection: Connection, digest: str) -> Release | None:
    """The release with this digest, or None."""
    row = connection.execute(select(table).where(table.c.digest == digest)).first()
    return None if row is None else _release(row)


def every(connection: Connection) -> list[Release]:
    """All releases, newest first."""
    rows = connection.execute(select(table).order_by(table.c.created.desc(), table.c.digest)).all()
    return [_release(row) for row in rows]


def parse_index(data: bytes) -> Index:
    """Read an index from outside.

    Raises:
        BadRequest: it is none, or too large.
    """
    if len(data) > MAX_INDEX_BYTES:
        raise BadRequest(f"the index has {len(data)} bytes; at most {MAX_INDEX_BYTES} are read")
    try:
        return Index.parse(data)
    except PackageError as error:
        raise BadRequest(
            f"this is no release index: {error}", "send the bytes that model-export publish sends"
        ) from error


def _parent(lineage: Mapping[str, Any]) -> str | None:
    parent = lineage.get("parent")
    return parent if isinstance(parent, str) and parent.startswith("sha256:") and len(parent) == 71 else None


def _release(row: Row[Any]) -> Release:
    return Release(
        digest=row.digest,
        name=row.name,
        version=row.version,
        parent=row.parent,
        source=row.source,
        created=row.created,
        size=row.size,
        index_size=len(row.index_bytes),
        metrics=json.loads(row.metrics_json),
        lineage=json.loads(row.lineage_json),
        published_by=row.published_by or "",
    )
