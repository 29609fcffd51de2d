"""Fetching: only the files that are missing, resumable, and never more bytes than the index announces."""

from __future__ import annotations

import errno
import hashlib
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edge_agent.identity import IdentityError
from edge_agent.ports import Vouched
from edge_agent.updates.bandwidth import TokenBucket
from edge_agent.updates.blobs import ReleaseFiles, variants_for
from edge_agent.updates.errors import Refused, Transient, Unvouched, WrongBytes
from edge_agent.updates.rules import Offer
from edge_agent.updates.space import shortage
from edgeloop.package import Base, Index, IndexEntry, Manifest, PackageError, required_paths
from edgeloop.package.documents import MAX_JSON_BYTES
from edgeloop.package.index import MAX_INDEX_BYTES, hash_file
from edgeloop.package.manifest import MANIFEST
from edgeloop.records import dataclass
from edgeloop.runtime.extensions import lacking

if TYPE_CHECKING:
    import httpx

#: A file may take this long, and what its bytes take at this rate: a hub that drips holds no update up for ever.
PATIENCE_S, SLOWEST_BYTES_PER_S = 60.0, 2048.0
#: For connecting to a hub, and for each wait for its bytes.
TIMEOUT_S = 15.0


@dataclass(frozen=True)
class FetchLimits:
    """Bounds of an update.

    Attributes:
        max_release_bytes: of a release.
        disk_reserve_bytes: of the disk that stay free.
        disk_quota_bytes: that the data folder may take in all; 0: any.
        max_bytes_per_s: over the network; 0: any.
    """

    max_release_bytes: int
    disk_reserve_bytes: int
    disk_quota_bytes: int = 0
    max_bytes_per_s: float = 0.0


@dataclass(frozen=True)
class Fetched:
    """A release whose files are here.

    Attributes:
        index: of the release.
        variants: names of those that may run.
        entries: files that were needed.
        base: the release that it was retrained from, where somebody signs for the difference.
    """

    index: Index
    variants: tuple[str, ...]
    entries: tuple[IndexEntry, ...]
    base: Base | None = None


class Fetcher:
    """Fetches releases from a hub over HTTP."""

    def __init__(
        self,
        files: ReleaseFiles,
        limits: FetchLimits,
        *,
        hub: str,
        providers: Collection[str],
        required: Collection[str],
        received: Callable[[int], None],
        make_room: Callable[[Collection[str]], None],
        interrupted: Callable[[float], bool],
        tls: Callable[[], ssl.SSLContext] | None = None,
        index_path: Callable[[str], str] = lambda release: f"/api/v1/releases/{release}/index",
    ) -> None:
        """Prepare.

        Args:
            files: where they go.
            limits: bounds.
            hub: base URL, for offers that name none.
            providers: execution providers of this machine.
            required: of which one has to be used; empty: any.
            received: told of bytes that came over the network.
            make_room: removes what no kept release needs, and none of the files with these SHA-256.
            interrupted: waits for so many seconds; whether to give up (the agent stops, the offer was withdrawn).
            tls: gives the context for HTTPS; None: what the device's system trusts.
            index_path: where a hub has the index with a digest.

        Raises:
            Transient: there can be no HTTPS now.
        """
        self._files, self._limits, self._hub, self._index_path = files, limits, hub.rstrip("/"), index_path
        self._providers, self._required = providers, required
        self._received, self._make_room, self._interrupted = received, make_room, interrupted
        self._bucket = TokenBucket(limits.max_bytes_per_s, time.monotonic())
        import httpx  # with the first update, long after the first answer

        try:
            # Without an identity HTTPS trusts what the device's system trusts, not a list that comes with a package.
            context = ssl.create_default_context() if tls is None else tls()
        except IdentityError as error:
            raise Transient(str(error)) from error
        # What comes is hashed as it comes: a few compressed bytes could become any number.
        plain = {"Accept-Encoding": "identity"}
        self._http = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, verify=context, headers=plain)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Fetcher:
        """Use the fetcher."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def fetch(self, offer: Offer, vouched: Vouched) -> Fetched:
        """Bring every file that this device needs of a release.

        Args:
            offer: the release.
            vouched: who answers for it.

        Raises:
            Transient: no network, no hub, a full disk; what has come is kept for the next try.
            Refused: the release is wrong, or wrong for this device.
        """
        with _reasons():
            base = (offer.hub or self._hub).rstrip("/")
            index = self._index(base, offer.release)
            self._files.save_index(index)
            if index.total_bytes > self._limits.max_release_bytes:
                raise Refused(
                    f"the release has {index.total_bytes:,} bytes; this device takes "
                    f"{self._limits.max_release_bytes:,} (max_release_bytes)"
                )
            manifest = self._manifest(base, index)
            if vouched.model and manifest.name != vouched.model:
                raise Unvouched(f"the release is signed as one of {vouched.model}, and calls itself {manifest.name}")
            if reason := lacking(manifest.meta.needs):
                raise Refused(reason)
            offered = {name: variant.ep for name, variant in manifest.variants.items()}
            variants = variants_for(self._providers, self._required, offered)
            entries = required_paths(manifest, index, variants)
            missing = {entry.sha256: entry for entry in entries if not self._files.has(entry)}
            self._check_space(sum(self._to_come(entry) for entry in missing.values()), entries)
            for entry in missing.values():
                self._blob(base, entry)
            before = None if vouched.base is None else self._base(base, vouched.base)
            return Fetched(index, variants, entries, before)

    def _base(self, base: str, release: str) -> Base:
        """Index and manifest of the release that one was retrained from; most devices have them."""
        index = self._index(base, release)
        return Base(index, self._manifest(base, index))

    def _index(self, base: str, release: str) -> Index:
        known = self._files.index(release)
        if known is not None:
            return known
        end = time.monotonic() + PATIENCE_S
        with self._http.stream("GET", base + self._index_path(release)) as answer:
            _check_status(answer, f"the index of {release}")
            data = bytearray()
            for chunk in answer.iter_raw():
                data += chunk
                if len(data) > MAX_INDEX_BYTES:
                    raise WrongBytes(f"the hub sends an index of more than {MAX_INDEX_BYTES:,} bytes")
                if time.monotonic() > end:
                    raise Transient("the hub sends the index too slowly; it is fetched later")
        self._received(len(data))
        if "sha256:" + hashlib.sha256(data).hexdigest() != release:
            raise WrongBytes(f"the index that the hub sends is not that of {release}: its digest differs")
        return Index.parse(bytes(data))

    def _manifest(self, base: str, index: Index) -> Manifest:
        entry = index.by_path.get(MANIFEST)
        if entry is None:
            raise Refused(f"the release has no {MANIFEST}")
        if entry.size > MAX_JSON_BYTES:
            raise Refused(f"{MANIFEST} has {entry.size:,} bytes; at most {MAX_JSON_BYTES:,} are read")
        self._files.drop_damaged([entry])  # it is read before the audit: a bad disk must not look like a bad release
        if not self._files.has(entry):
            self._check_space(self._to_come(entry), [entry])
            self._blob(base, entry)
        return Manifest.parse(self._files.blob(entry.sha256).read_bytes())

    def _to_come(self, entry: IndexEntry) -> int:
        part = self._files.part(entry.sha256)
        return max(0, entry.size - (part.stat().st_size if part.exists() else 0))

    def _check_space(self, needed: int, entries: Collection[IndexEntry]) -> None:
        data, limits = self._files.data, self._limits
        bounds = {"reserve": limits.disk_reserve_bytes, "quota": limits.disk_quota_bytes}
        if shortage(data, needed, **bounds):
            self._make_room({entry.sha256 for entry in entries})
            if reason := shortage(data, needed, **bounds):
                raise Transient(reason)

    def _blob(self, base: str, entry: IndexEntry) -> None:
        """Bring one file; a part from an earlier try is continued."""
        part = self._files.part(entry.sha256)
        have = part.stat().st_size if part.exists() else 0
        if have > entry.size:
            self._files.disk.unlink(part)
            have = 0
        if have < entry.size or entry.size == 0:
            have = self._download(f"{base}/api/v1/blobs/{entry.sha256}", entry, part, have)
        if hash_file(part) != entry.sha256:
            self._files.disk.unlink(part)
            if have:  # what an earlier life has left may be damaged by a power cut: that is not the hub's fault
                self._blob(base, entry)
                return
            raise WrongBytes(f"{entry.path}: the bytes that the hub sends are not those of the index")
        self._files.place(entry.sha256)

    def _download(self, url: str, entry: IndexEntry, part: Path, have: int) -> int:
        """Bring what is missing of a file; returns the bytes of it that came from an earlier try."""
        slowest = min(SLOWEST_BYTES_PER_S, self._limits.max_bytes_per_s / 2 or SLOWEST_BYTES_PER_S)
        end = time.monotonic() + PATIENCE_S + (entry.size - have) / slowest
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._http.stream("GET", url, headers=headers) as answer:
            if have and answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._files.disk.unlink(part)
                raise Transient(f"{entry.path}: the hub could not continue the file; it is fetched from the start")
            _check_status(answer, entry.path)
            if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
                have = 0
            size = have
            with self._files.disk.open(part, keep=have > 0) as file:
                # Without a size: a chunk that is waited for would be lost with the connection, and nothing resumed.
                for chunk in answer.iter_raw():
                    size += len(chunk)
                    if size > entry.size:
                        raise WrongBytes(f"{entry.path}: the hub sends more than the {entry.size:,} bytes of the index")
                    file.write(chunk)
                    self._received(len(chunk))
                    if time.monotonic() > end:
                        raise Transient(f"{entry.path}: the hub sends too slowly; the rest is fetched later")
                    if self._interrupted(self._bucket.take(len(chunk), time.monotonic())):
                        raise Transient(f"{entry.path}: something else came up; the rest is fetched later")
        if size < entry.size:
            raise Transient(f"{entry.path}: the connection ended after {size:,} of {entry.size:,} bytes")
        return have


def _check_status(answer: httpx.Response, what: str) -> None:
    if answer.status_code in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    asked = retry_after_s(answer.headers)
    if answer.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise Transient(f"{what}: the hub does not have it (HTTP {answer.status_code})", asked)
    raise Transient(f"{what}: the hub answers with HTTP {answer.status_code}", asked)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks to wait before the next try (RFC 9110, 10.2.3), or 0.

    A date is compared with the answer's own ``Date``: the device's clock may be years off.
    """
    from email.utils import parsedate_to_datetime

    asked = headers.get("retry-after", "").strip()
    if asked.isdecimal():
        return float(asked[:9])
    try:
        wait = parsedate_to_datetime(asked) - parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, wait.total_seconds())
    except (ValueError, TypeError):
        return 0.0


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn what libraries raise into reasons that people can act on."""
    import httpx

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Transient(f"the hub cannot be reached: {error or type(error).__name__}") from error
    except PackageError as error:
        raise Refused(f"the release is malformed: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Transient("the disk is full; make room, the update goes on by itself") from error
        raise Transient(f"the disk cannot be written: {error}") from error
