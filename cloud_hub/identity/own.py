"""The hub's own certificates, which it renews: its server's, the one that it shows its broker, one to look on with."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from cloud_hub import exit_codes
from cloud_hub.errors import HubError, StartError
from cloud_hub.identity.authority import Authority, CommandCA, EmbeddedCA
from cloud_hub.identity.certificates import (
    Use,
    hub_name,
    key_pem,
    make_request,
    new_key,
    observer_name,
    public_key_bytes,
    read_key,
)
from cloud_hub.settings import Settings, is_wildcard
from edgeloop.whole_files import make_private_folder, write_whole

log = logging.getLogger(__name__)

OWN_DAYS = 90.0
#: Part of a certificate's life after which another one is made.
RENEW_AT = 2 / 3
#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME: what a device's certificate is worth after its end is for the hub to say.
NO_CHECK_TIME = 0x200000


class OwnIdentity:
    """The hub's certificates in ``<data>/identity``, made where they are missing.

    Args:
        settings: names and addresses that the hub has.
        clock: unix seconds.

    Raises:
        StartError: a file is damaged, or the authority does not answer.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self.folder = settings.data / "identity"
        try:
            make_private_folder(self.folder)
            self.authority = make_authority(settings, self.folder)
            self._server_ca = b"" if settings.server_ca is None else settings.server_ca.read_bytes()
            self.renew()
            self._loaded = self._state()
            self._server, self._client = self._make_server_context(), self._make_client_context()
        except HubError as error:
            if isinstance(error, StartError):
                raise
            raise StartError(str(error), error.hint, exit_codes.NO_IDENTITY) from error
        except (OSError, ValueError) as error:
            raise StartError(
                f"the hub's certificates cannot be used: {error}",
                f"check the files of server_certificate, server_key and server_ca, and {self.folder}",
                exit_codes.NO_IDENTITY,
            ) from error

    @property
    def trust(self) -> bytes:
        """What a device pins: the certificates by which broker and HTTP interface are known, PEM."""
        return self.authority.anchors + self._server_ca

    @property
    def server_context(self) -> ssl.SSLContext:
        """For the HTTP interface: a client may show a device's certificate, and no other one."""
        return self._server

    @property
    def client_context(self) -> ssl.SSLContext:
        """For the hub's link to its broker."""
        return self._client

    def file(self, name: str) -> Path:
        """One of its files."""
        return self.folder / name

    def renew(self) -> bool:
        """Make what is missing, near its end, or of another name; returns whether something was made."""
        hosts = server_names(self._settings)
        fleet = self._settings.fleet
        made = [
            self._ensure("server", hosts[0], "server", hosts),
            self._ensure("hub", hub_name(fleet), "hub", ()),
            self._ensure("observer", observer_name(fleet), "hub", ()),
        ]
        return any(made)

    def refresh(self) -> bool:
        """`renew`, and have new connections use what was made, here or by whoever renews the files of the settings."""
        made = self.renew()
        if (state := self._state()) != self._loaded:
            self._server.load_cert_chain(*self._http_files())
            self._client.load_cert_chain(*self._broker_files())
            self._loaded = state  # not before: a pair that is half written is tried again
        return made

    def _state(self) -> list[tuple[int, int]]:
        states = [file.stat() for file in (*self._http_files(), *self._broker_files())]
        return [(state.st_mtime_ns, state.st_size) for state in states]

    def _ensure(self, stem: str, name: str, use: Use, hosts: Sequence[str]) -> bool:
        key_file, file = self.file(f"{stem}.key"), self.file(f"{stem}.crt")
        if not key_file.exists():
            write_whole(key_file, key_pem(new_key()))
        key = read_key(key_file.read_bytes())
        request = make_request(key, name, hosts)
        if file.exists() and self._good(x509.load_pem_x509_certificates(file.read_bytes())[0], request, hosts):
            return False
        write_whole(file, self.authority.issue(request, name, use, OWN_DAYS, hosts), mode=0o644)
        log.info("made a certificate for %s", name)
        return True

    def _good(self, leaf: x509.Certificate, request: bytes, hosts: Sequence[str]) -> bool:
        if public_key_bytes(leaf) != public_key_bytes(x509.load_pem_x509_csr(request)):
            return False
        begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        if self._clock() > begin + (end - begin) * RENEW_AT:
            return False
        return set(hosts) <= _hosts_of(leaf)

    def _http_files(self) -> tuple[Path, Path]:
        given, key = self._settings.server_certificate, self._settings.server_key
        if given is not None and key is not None:
            return given, key
        return self.file("server.crt"), self.file("server.key")

    def _broker_files(self) -> tuple[Path, Path]:
        given, key = self._settings.broker_certificate, self._settings.broker_key
        if given is not None and key is not None:
            return given, key
        return self.file("hub.crt"), self.file("hub.key")

    def _make_server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*self._http_files())
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= NO_CHECK_TIME
        context.load_verify_locations(cadata=self.authority.anchors.decode("ascii"))
        return context

    def _make_client_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._settings.broker_ca is not None:
            context.load_verify_locations(self._settings.broker_ca)
        else:
            context.load_verify_locations(cadata=self.authority.anchors.decode("ascii"))
        context.load_cert_chain(*self._broker_files())
        return context


def make_authority(settings: Settings, folder: Path) -> Authority:
    """The authority that the settings ask for."""
    if settings.ca_command:
        return CommandCA(settings.ca_command, settings.ca_file, settings.crl_file)
    return EmbeddedCA(folder, settings.fleet)


def server_names(settings: Settings) -> list[str]:
    """Names and addresses that clients know the hub and its broker by; the one that stands for all comes first."""
    own = socket.gethostname()
    found = [
        urlsplit(settings.public_url).hostname or "",
        settings.public_broker.rpartition(":")[0].strip("[]"),
        *(host for host in (settings.listen_host, settings.broker_host) if not is_wildcard(host)),
        "localhost",
        "127.0.0.1",
        "::1",
        own if own.isascii() else "",
    ]
    return [name for name in dict.fromkeys(found) if name]


def _hosts_of(leaf: x509.Certificate) -> set[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
