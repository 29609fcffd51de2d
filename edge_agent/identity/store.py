"""The identity folder ``<data>/identity``: key, certificate, whom to trust, and what the hub said at enrolment.

A new identity is written beside the old one, in ``identity.new``, and takes its name when it is whole. The key is the
first thing in there: an enrolment whose answer was lost goes on with it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeloop.records import dataclass
from edgeloop.whole_files import make_private_folder, sync_folder, write_whole

NAME, NEW, OLD = "identity", "identity.new", "identity.old"
KEY, CERTIFICATE, CA, ROOT, ENROLMENT = "device.key", "device.crt", "ca.crt", "root.json", "enrolment.json"
#: The request of a key that the agent cannot read, such as a TPM's: it is sent again at each renewal.
REQUEST = "device.csr"


class IdentityError(Exception):
    """The identity on this device cannot be used; the message says why, and what to do."""


class NotEnrolled(IdentityError):
    """This device has no identity."""


@dataclass(frozen=True)
class Identity:
    """An enrolled device.

    Attributes:
        folder: of its files.
        device: its name, and its certificate's.
        fleet: that it belongs to.
        hub: base URL of the hub.
        broker_host: where the broker is.
        broker_port: its port.
        channels: that it may follow; the first one is its own.
        enrolled_at: the hub's clock when it enrolled, unix seconds.
        begins: begin of its certificate, unix seconds. An earlier time of the device's clock is a wrong one.
        ends: end of its certificate, unix seconds.
        broker_tls: whether the broker asks for the certificate; one on this machine may not.
        key_file: path of its key where that is outside of the folder, or "".
    """

    folder: Path
    device: str
    fleet: str
    hub: str
    broker_host: str
    broker_port: int
    channels: tuple[str, ...]
    enrolled_at: float
    begins: float
    ends: float
    broker_tls: bool = True
    key_file: str = ""

    @property
    def key(self) -> Path:
        """Its private key."""
        return Path(self.key_file) if self.key_file else self.folder / KEY

    @property
    def certificate(self) -> Path:
        """Its certificate with the chain."""
        return self.folder / CERTIFICATE

    @property
    def ca(self) -> Path:
        """The certificates by which it knows broker and hub."""
        return self.folder / CA

    @property
    def root(self) -> bytes | None:
        """Root metadata of signed releases as it was at enrolment, or None where it was not given."""
        file = self.folder / ROOT
        return file.read_bytes() if file.exists() else None

    def plausible(self, now: float) -> bool:
        """Whether a clock that says ``now`` may be right: it was later than that when the certificate was made."""
        return now >= self.begins

    def due(self, now: float) -> bool:
        """Whether the certificate is to be renewed: two thirds of its life are over."""
        return now > self.begins + (self.ends - self.begins) * 2 / 3


def load(data: Path) -> Identity | None:
    """The identity in a data folder, or None where there is none.

    Raises:
        IdentityError: it is damaged.
    """
    _take_over(data)
    folder = data / NAME
    try:
        found = json.loads((folder / ENROLMENT).read_bytes())
        identity = Identity(folder=folder, **{**found, "channels": tuple(found["channels"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IdentityError(
            f"{folder / ENROLMENT} cannot be used ({error}); restore it, or enrol this device again"
        ) from error
    for file in (identity.key, identity.certificate, identity.ca):
        if not file.is_file():
            raise IdentityError(f"{file} is missing; restore it, or enrol this device again")
    return identity


def require(data: Path) -> Identity:
    """The identity in a data folder.

    Raises:
        NotEnrolled: there is none.
        IdentityError: it is damaged.
    """
    if (identity := load(data)) is None:
        raise NotEnrolled(
            "this device is not enrolled: make a token with `cloud-hub enrolment create`, then run "
            "`edge-agent enrol --hub https://… --token …`; for development on one machine set insecure = true"
        )
    return identity


def begin(data: Path) -> Path:
    """The folder of a new identity; what an enrolment that did not end has left there is kept.

    Raises:
        OSError: it cannot be made.
    """
    _take_over(data)
    make_private_folder(data / NEW)
    return data / NEW


def save(identity: Identity, *, certificate: bytes, ca: bytes, root: bytes | None) -> None:
    """Write a new identity's files, the one that says that they are all there last.

    Raises:
        OSError: they cannot be written.
    """
    write_whole(identity.certificate, certificate)
    write_whole(identity.ca, ca)
    if root is not None:
        write_whole(identity.folder / ROOT, root)
    else:
        (identity.folder / ROOT).unlink(missing_ok=True)
    write_whole(identity.folder / ENROLMENT, _document(identity))


def commit(data: Path) -> None:
    """Have the new identity take the old one's place.

    Raises:
        OSError: it cannot.
    """
    if (data / NAME).exists():
        _remove(data / OLD)
        (data / NAME).rename(data / OLD)
    (data / NEW).rename(data / NAME)
    sync_folder(data)
    _remove(data / OLD)


def renewed(identity: Identity, *, certificate: bytes, ca: bytes, begins: float, ends: float) -> None:
    """Write a certificate that takes the present one's place, of the same key.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(identity.ca, ca)
    write_whole(identity.certificate, certificate)
    document = json.loads(_document(identity)) | {"begins": begins, "ends": ends}
    write_whole(identity.folder / ENROLMENT, json.dumps(document).encode())


def _document(identity: Identity) -> bytes:
    document: dict[str, Any] = {**asdict(identity), "channels": list(identity.channels)}
    del document["folder"]
    return json.dumps(document).encode()


def _take_over(data: Path) -> None:
    """Go on where a power cut stopped `commit`: the old one is away, the new one is whole."""
    if not (data / NAME).exists() and (data / NEW / ENROLMENT).exists():
        (data / NEW).rename(data / NAME)
        sync_folder(data)


def _remove(folder: Path) -> None:
    if folder.exists():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
