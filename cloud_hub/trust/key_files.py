"""The hub's online keys: one file each, made at the first start, replaced only when people have signed for another.

A role's keys are numbered. The hub signs with those that the trusted metadata name, whatever their number, so a
rotation has no moment of its own: a new key is made, people sign for it, and from then on the old one is not used and
is dropped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from cloud_hub import exit_codes
from cloud_hub.blobs import sync_folder
from cloud_hub.errors import StartError
from edgeloop.trust import keys as formats
from edgeloop.trust.errors import TrustError
from edgeloop.trust.names import ONLINE

log = logging.getLogger(__name__)

_NAME = re.compile(r"(?P<role>[a-z]+)\.(?P<number>[1-9][0-9]{0,5})\.pem")


@dataclass(frozen=True)
class OnlineKey:
    """A key of the hub.

    Attributes:
        role: what it signs.
        number: 1 for the first key of its role; a rotation makes the next.
        signer: signs with it.
    """

    role: str
    number: int
    signer: CryptoSigner

    @property
    def keyid(self) -> str:
        """Its id in signed metadata."""
        return str(self.signer.public_key.keyid)


class KeyFiles:
    """The folder of the hub's keys: PKCS8 in PEM, readable by its owner alone.

    Args:
        folder: where they are; `ensure` makes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ensure(self) -> None:
        """Make the first key of every role that has none.

        Raises:
            StartError: the folder cannot be written, or a key cannot be read.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            for unfinished in self.folder.glob("*.new"):
                unfinished.unlink(missing_ok=True)
            for path in self.folder.glob("*.pem"):
                if path.stat().st_mode & 0o077:
                    log.warning("%s could be read by others. It is the owner's alone again; rotate it", path)
                    path.chmod(0o600)
            present = {key.role for key in self.all()}
            for role in ONLINE:
                if role not in present:
                    self.make(role)
        except OSError as error:
            raise StartError(
                f"the keys in {self.folder} cannot be used: {error.strerror}",
                "check the permissions of the folder and the space on its disk",
                exit_codes.DATA_UNUSABLE,
            ) from error

    def all(self) -> list[OnlineKey]:
        """Every key, by role and number.

        Raises:
            StartError: one cannot be read.
        """
        found = []
        for path in self.folder.glob("*.pem"):
            if name := _NAME.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                    found.append(OnlineKey(name["role"], int(name["number"]), _read(path)))
        return sorted(found, key=lambda key: (key.role, key.number))

    def make(self, role: str) -> OnlineKey:
        """Make the next key of a role; it is on the disk, whole, when this returns."""
        number = max((key.number for key in self.all() if key.role == role), default=0) + 1
        signer = formats.generate()
        place = self.folder / f"{role}.{number}.pem"
        fresh = self.folder / f"{place.name}.{os.getpid()}.new"
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(formats.to_pem(signer, None))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, place)  # a rename would replace a key that another process has just made
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(self.folder)
        log.info("made key %d of the role %s", number, role)
        return OnlineKey(role, number, signer)

    def drop(self, key: OnlineKey) -> None:
        """Forget a key that nothing names any more."""
        (self.folder / f"{key.role}.{key.number}.pem").unlink(missing_ok=True)
        sync_folder(self.folder)
        log.info("dropped key %d of the role %s: the fleet's metadata name a newer one", key.number, key.role)


def _read(path: Path) -> CryptoSigner:
    try:
        return formats.from_pem(path.read_bytes())
    except TrustError as error:
        raise StartError(
            f"the key {path} cannot be read: {error}",
            "restore it from a copy, or remove it: the hub makes another one, and people sign for that",
            exit_codes.DATA_UNUSABLE,
        ) from error
