"""The client of python-tuf over the files that a channel's message carries: what a device believes of a hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from edgeloop.protocol import ChannelDocument, ReleaseRef, SignedChannel
from edgeloop.trust.names import CHANNELS, channel_path

_BASE = "https://hub/tuf/"


class Carried(FetcherInterface):
    """Gives out files from memory, and nothing else."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__()
        self.files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(_BASE)
        if name not in self.files:
            raise DownloadHTTPError(f"{name} is not there", 404)
        yield self.files[name]


class Verifier:
    """A device's memory of signed metadata, in a folder; it begins with a pinned root."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self.folder, self.root = folder, root
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, channel: str, payload: bytes) -> ChannelDocument:
        """The document in a payload; raises python-tuf's errors, or AssertionError, when nothing vouches for it."""
        message = SignedChannel.from_bytes(payload)
        updater = self._updater(message.metadata)
        target = updater.get_targetinfo(channel_path(channel))
        assert target is not None, f"{CHANNELS} does not name {channel}"
        target.verify_length_and_hashes(message.document)
        document = ChannelDocument.from_bytes(message.document)
        for ref in (document.current, document.rollout and document.rollout.candidate):
            if ref is not None:
                self._check(updater, ref)
        return document

    def _updater(self, files: Mapping[str, bytes]) -> Updater:
        updater = Updater(
            str(self.folder), _BASE, fetcher=Carried(files), target_dir=str(self.folder), bootstrap=self.root
        )
        updater.refresh()
        return updater

    def _check(self, updater: Updater, ref: ReleaseRef) -> None:
        target = updater.get_targetinfo(ref.target)
        assert target is not None, f"no role names {ref.target!r}"
        assert (f"sha256:{target.hashes['sha256']}", target.length) == (ref.digest, ref.index_size)
