"""The files of samples: one each, so that a deletion takes it from the disk.

A file begins with 16 random bytes that are nowhere else. So its SHA-256 can be written into a proof of its deletion,
and tells nothing of what was in it: without the salt nobody can try what would have had that hash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cloud_hub.blobs import storage_error
from cloud_hub.errors import NotFound
from edgeloop.protocol import ProtocolError, decode, encode
from edgeloop.protocol.inputs import MAX_INPUT_BYTES, Tensor
from edgeloop.whole_files import make_private_folder, sync_folder, write_whole

SALT_BYTES = 16
_END = ".sample"


class SampleFiles:
    """Files below a folder, each by its own SHA-256.

    Args:
        folder: is made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_private_folder(folder)

    def path(self, sha256: str) -> Path:
        """Where a file is."""
        return self.folder / sha256[:2] / f"{sha256}{_END}"

    def write(self, sha256: str, body: bytes) -> None:
        """Write a file; it is whole on the disk, or not there.

        Raises:
            StorageFull: the disk is full or refuses to write.
        """
        path = self.path(sha256)
        try:
            if not path.parent.is_dir():
                make_private_folder(path.parent)
            write_whole(path, body)
        except OSError as error:
            raise storage_error(error, "a sample") from error

    def tensors(self, sha256: str) -> dict[str, Tensor]:
        """What a file holds, by name.

        Raises:
            NotFound: it is gone.
            ProtocolError: it is damaged.
        """
        try:
            body = self.path(sha256).read_bytes()
        except OSError as error:
            raise NotFound("the inputs of this sample are not there", "it was deleted meanwhile") from error
        return opened(body)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files by their SHA-256, for good; those that are gone already are none the worse for it.

        Raises:
            StorageFull: a file cannot be deleted.
        """
        folders = set()
        try:
            for name in names:
                path = self.path(name)
                path.unlink(missing_ok=True)
                folders.add(path.parent)
            for folder in folders:
                if folder.is_dir():
                    sync_folder(folder)
        except OSError as error:
            raise storage_error(error, "a deletion of samples") from error

    def all(self) -> Iterator[tuple[str, Path]]:
        """Every file that is there with its name, a SHA-256 where it is whole."""
        for path in self.folder.glob("??/*"):
            yield path.name.removesuffix(_END), path


def closed(tensors: Mapping[str, Tensor]) -> tuple[bytes, str, str]:
    """A file's bytes, their SHA-256, and the SHA-256 of the tensors alone."""
    plain = encode({name: tensors[name].to_wire() for name in sorted(tensors)}, 2 * MAX_INPUT_BYTES)
    body = os.urandom(SALT_BYTES) + plain
    return body, hashlib.sha256(body).hexdigest(), hashlib.sha256(plain).hexdigest()


def opened(body: bytes) -> dict[str, Tensor]:
    """The tensors of a file's bytes; raises ProtocolError."""
    found = decode(body[SALT_BYTES:], 2 * MAX_INPUT_BYTES)
    if not isinstance(found, dict):
        raise ProtocolError("a sample's file holds no tensors")
    return {str(name): Tensor.from_wire(value, f"tensors.{name}") for name, value in found.items()}
