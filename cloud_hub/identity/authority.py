"""Who signs certificates: the hub itself, or a certificate authority outside of it that a command reaches."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509

from cloud_hub import exit_codes
from cloud_hub.errors import AuthorityError, StartError
from cloud_hub.identity.certificates import (
    Use,
    certificate_pem,
    key_pem,
    name_of,
    new_ca,
    new_crl,
    new_key,
    public_key_bytes,
    read_key,
    read_request,
    sign,
)
from edgeloop.whole_files import write_whole

#: A person may have to touch a key, a service of a cloud has to be asked: longer than that is a fault.
COMMAND_TIMEOUT_S = 60.0


class Authority(Protocol):
    """Whoever signs the certificates of a fleet."""

    @property
    def anchors(self) -> bytes:
        """The certificates by which those that it signs are known, PEM."""

    def issue(self, request: bytes, name: str, use: Use, days: float, hosts: Sequence[str] = ()) -> bytes:
        """A certificate with its chain, PEM.

        Args:
            request: a certificate request, PEM.
            name: the common name that it gets, whatever the request says.
            use: what it may be used for.
            days: how long it holds.
            hosts: names and addresses of a server.

        Raises:
            BadRequest: the request is none, or its key is weak.
            AuthorityError: nothing was issued.
        """

    def crl(self, serials: Iterable[tuple[int, float]]) -> bytes | None:
        """The list of revoked certificates (serial number, unix seconds), PEM; None when another one keeps it."""


class EmbeddedCA:
    """The hub's own certificate authority: ``ca.key`` and ``ca.crt`` in a folder, made where they are missing.

    Args:
        folder: is there, and its owner's alone.
        fleet: named in the certificate.

    Raises:
        StartError: one of the two is missing or damaged.
    """

    def __init__(self, folder: Path, fleet: str) -> None:
        key_file, file = folder / "ca.key", folder / "ca.crt"
        if not key_file.exists() and file.exists():
            raise StartError(
                f"{key_file} is missing, and {file} is there: certificates could not be issued any more",
                "restore the key from its copy; without one, remove the folder and enrol every device again",
                exit_codes.DATA_UNUSABLE,
            )
        if not file.exists():
            key = read_key(key_file.read_bytes()) if key_file.exists() else new_key()
            write_whole(key_file, key_pem(key))
            write_whole(file, certificate_pem(new_ca(key, fleet, datetime.now(UTC))), mode=0o644)
        try:
            self._key = read_key(key_file.read_bytes())
            self._ca = x509.load_pem_x509_certificate(file.read_bytes())
        except (OSError, ValueError) as error:
            raise StartError(
                f"the certificate authority in {folder} cannot be used: {error}",
                "restore ca.key and ca.crt from their copy",
                exit_codes.DATA_UNUSABLE,
            ) from error

    @property
    def anchors(self) -> bytes:
        """Its certificate, PEM."""
        return certificate_pem(self._ca)

    def issue(self, request: bytes, name: str, use: Use, days: float, hosts: Sequence[str] = ()) -> bytes:
        """A certificate, PEM; see `Authority`."""
        now = datetime.now(UTC).replace(microsecond=0)
        until = now + timedelta(days=days)
        signed = sign(read_request(request), name, use, hosts, until, ca=self._ca, key=self._key, now=now)
        return certificate_pem(signed)

    def crl(self, serials: Iterable[tuple[int, float]]) -> bytes | None:
        """The list of revoked certificates, PEM."""
        return new_crl(serials, ca=self._ca, key=self._key, now=datetime.now(UTC).replace(microsecond=0))


class CommandCA:
    """A certificate authority that a command reaches: the request on its input, the certificate's chain on its output.

    The command's environment says what is wanted: ``EDGELOOP_NAME``, ``EDGELOOP_USE`` (device, hub or server),
    ``EDGELOOP_DAYS`` and ``EDGELOOP_HOSTS`` (with commas between). What comes back is held to that.

    Args:
        command: a command line; no shell reads it.
        anchors: file of the certificates by which those that it issues are known, PEM.
        crl_file: its list of revoked certificates, which somebody keeps up to date, or None.

    Raises:
        StartError: the anchors cannot be read.
    """

    def __init__(self, command: str, anchors: Path | None, crl_file: Path | None) -> None:
        self._command, self._crl_file = shlex.split(command), crl_file
        try:
            self._anchors = b"" if anchors is None else anchors.read_bytes()
            x509.load_pem_x509_certificates(self._anchors)
        except (OSError, ValueError) as error:
            raise StartError(
                f"ca_command is set, and ca_file ({anchors}) has no certificates: {error}",
                "set ca_file to the certificates of the authority that ca_command reaches, PEM",
                exit_codes.SETTINGS,
            ) from error

    @property
    def anchors(self) -> bytes:
        """The authority's certificates, PEM."""
        return self._anchors

    def issue(self, request: bytes, name: str, use: Use, days: float, hosts: Sequence[str] = ()) -> bytes:
        """A certificate with its chain, PEM; see `Authority`."""
        asked = read_request(request)
        chain = self._ask(request, name, use, days, hosts)
        try:
            certificates = x509.load_pem_x509_certificates(chain)
        except ValueError as error:
            raise AuthorityError(
                "ca_command printed no certificate", "it has to print PEM, and nothing else"
            ) from error
        leaf = certificates[0]
        if public_key_bytes(leaf) != public_key_bytes(asked):
            raise AuthorityError(
                "ca_command printed a certificate of another key", "its first one has to be the new one"
            )
        if name_of(leaf) != name:
            raise AuthorityError(
                f"ca_command printed a certificate for {name_of(leaf)[:80]!r} instead of {name!r}",
                "its template has to take the common name from EDGELOOP_NAME",
            )
        return certificate_pem(*certificates)

    def crl(self, serials: Iterable[tuple[int, float]]) -> bytes | None:
        """What ``crl_file`` holds now, or None."""
        return None if self._crl_file is None else self._crl_file.read_bytes()

    def _ask(self, request: bytes, name: str, use: Use, days: float, hosts: Sequence[str]) -> bytes:
        wanted = {
            "EDGELOOP_NAME": name,
            "EDGELOOP_USE": use,
            "EDGELOOP_DAYS": f"{days:g}",
            "EDGELOOP_HOSTS": ",".join(hosts),
        }
        try:
            done = subprocess.run(
                self._command,
                input=request,
                capture_output=True,
                env={**os.environ, **wanted},
                timeout=COMMAND_TIMEOUT_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise AuthorityError(
                f"ca_command ended with {error.returncode}: {last[0][:200] if last else 'it said nothing'}",
                "run it by hand with a request on its input",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise AuthorityError(f"ca_command took more than {COMMAND_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            raise AuthorityError(f"ca_command cannot be run: {error}", "check the setting") from error
        return done.stdout
