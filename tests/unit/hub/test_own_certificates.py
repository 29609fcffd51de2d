"""The hub's own certificates and its authority, embedded or a command."""

from __future__ import annotations

import contextlib
import logging
import ssl
import stat
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509

from cloud_hub import exit_codes
from cloud_hub.broker import Choice, EmbeddedBroker
from cloud_hub.errors import AuthorityError, BadRequest, StartError
from cloud_hub.identities import Identities
from cloud_hub.identity.authority import CommandCA, EmbeddedCA
from cloud_hub.identity.certificates import hub_name, make_request, name_of, new_key
from cloud_hub.identity.own import OwnIdentity, server_names
from cloud_hub.settings import Settings
from edgeloop.protocol import Topics
from tests.doubles.fleet_ca import FleetCA
from tests.doubles.new_records import new_records

DAY_S = 86_400.0


def settings(data: Path, **more: object) -> Settings:
    return Settings(data=data, insecure=False, **more)  # type: ignore[arg-type]


def leaf(own: OwnIdentity, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(own.file(name).read_bytes())[0]


def hosts(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def test_keys_are_their_owners_alone(tmp_path: Path) -> None:
    own = OwnIdentity(settings(tmp_path))
    assert stat.S_IMODE(own.folder.stat().st_mode) == 0o700
    for stem in ("ca", "server", "hub"):
        assert stat.S_IMODE(own.file(f"{stem}.key").stat().st_mode) == 0o600
    assert name_of(leaf(own, "hub.crt")) == hub_name("default") == "hub:default"


def test_certificates_are_kept_until_two_thirds_are_over_and_contexts_follow(tmp_path: Path) -> None:
    now = [time.time()]
    own = OwnIdentity(settings(tmp_path), clock=lambda: now[0])
    before = own.file("server.crt").read_bytes()
    now[0] += 59 * DAY_S
    assert not own.refresh()
    assert OwnIdentity(settings(tmp_path), clock=lambda: now[0]).file("server.crt").read_bytes() == before
    now[0] += 2 * DAY_S
    assert own.refresh()
    assert own.file("server.crt").read_bytes() != before
    assert own.authority.anchors == own.file("ca.crt").read_bytes(), "the authority stays"


def test_a_name_that_is_new_is_in_a_new_certificate(tmp_path: Path) -> None:
    OwnIdentity(settings(tmp_path))
    wanted = {"public_url": "https://hub.example:8800", "public_broker": "mqtt.example:8883"}
    own = OwnIdentity(settings(tmp_path, listen_host="0.0.0.0", **wanted))
    assert {"hub.example", "mqtt.example", "localhost", "127.0.0.1", "::1"} <= hosts(leaf(own, "server.crt"))
    assert "0.0.0.0" not in hosts(leaf(own, "server.crt"))
    assert server_names(settings(tmp_path, **wanted))[0] == "hub.example"


def served(context: ssl.SSLContext, trust: bytes) -> int:
    """Serial number of what a client gets to see, in memory."""
    client = ssl.create_default_context(cadata=trust.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = context.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for side in (here, there, here):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    shown = here.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def test_a_certificate_of_its_own_for_http_is_used_and_devices_trust_both(tmp_path: Path) -> None:
    public = FleetCA(tmp_path / "public")
    given = public.issue("127.0.0.1", "server")
    own = OwnIdentity(
        settings(tmp_path / "data", server_certificate=given.certificate, server_key=given.key, server_ca=public.file)
    )
    assert own.trust == own.file("ca.crt").read_bytes() + public.file.read_bytes()
    assert served(own.server_context, own.trust) == given.serial
    renewed = public.issue("127.0.0.1", "server")
    given.key.write_bytes(renewed.key.read_bytes())
    given.certificate.write_bytes(renewed.certificate.read_bytes() + b"\n")
    assert not own.refresh(), "nothing was made here"
    assert served(own.server_context, own.trust) == renewed.serial


@pytest.mark.parametrize("name", ["ca.key", "ca.crt", "server.key", "server.crt"])
def test_a_damaged_file_ends_the_start_with_its_name(tmp_path: Path, name: str) -> None:
    OwnIdentity(settings(tmp_path))
    (tmp_path / "identity" / name).write_text("damaged")
    with pytest.raises(StartError) as caught:
        OwnIdentity(settings(tmp_path))
    assert caught.value.code in (exit_codes.NO_IDENTITY, exit_codes.DATA_UNUSABLE)
    assert "identity" in str(caught.value) + caught.value.hint


def test_a_lost_authority_is_not_silently_made_again(tmp_path: Path) -> None:
    OwnIdentity(settings(tmp_path))
    (tmp_path / "identity" / "ca.key").unlink()
    with pytest.raises(StartError, match="certificates could not be issued any more"):
        OwnIdentity(settings(tmp_path))


SIGN = """#!{python}
import os, sys
from datetime import UTC, datetime, timedelta
from cryptography import x509
from cloud_hub.identity.certificates import certificate_pem, read_key, sign
folder = {folder!r}
ca = x509.load_pem_x509_certificate(open(folder + "/ca.crt", "rb").read())
key = read_key(open(folder + "/ca.key", "rb").read())
request = x509.load_pem_x509_csr(sys.stdin.buffer.read())
name = os.environ["EDGELOOP_NAME"]
hosts = [host for host in os.environ["EDGELOOP_HOSTS"].split(",") if host]
now = datetime.now(UTC)
until = now + timedelta(days=float(os.environ["EDGELOOP_DAYS"]))
signed = sign(request, name, os.environ["EDGELOOP_USE"], hosts, until, ca=ca, key=key, now=now)
sys.stdout.buffer.write(certificate_pem(signed, ca))
"""


def command(folder: Path, text: str) -> str:
    script = folder / "sign"
    script.write_text(text)
    script.chmod(0o700)
    return str(script)


def test_a_command_signs_for_the_hub_and_for_devices(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    EmbeddedCA(elsewhere, "company")
    signs = command(tmp_path, SIGN.format(python=sys.executable, folder=str(elsewhere)))
    own = OwnIdentity(settings(tmp_path / "data", ca_command=signs, ca_file=elsewhere / "ca.crt"))
    assert name_of(leaf(own, "hub.crt")) == "hub:default"
    assert "127.0.0.1" in hosts(leaf(own, "server.crt"))
    assert not own.file("ca.key").exists()
    chain = own.authority.issue(make_request(new_key(), "x"), "cam-1", "device", 7.0)
    first, second = x509.load_pem_x509_certificates(chain)
    assert (name_of(first), name_of(second)) == ("cam-1", "edgeloop CA company")
    assert own.authority.crl([(1, 0.0)]) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho no rights >&2\nexit 3\n", "ended with 3: no rights"),
        ("#!/bin/sh\ncat > /dev/null\necho hello\n", "printed no certificate"),
        ("#!/bin/sh\ncat > /dev/null\ncat {other}\n", "of another key"),
        ("#!/nowhere/at/all\n", "cannot be run"),
    ],
)
def test_a_command_that_fails_or_lies_is_found_out(tmp_path: Path, text: str, said: str) -> None:
    ca = FleetCA(tmp_path / "ca")
    other = ca.issue("cam-1")
    authority = CommandCA(command(tmp_path, text.replace("{other}", str(other.certificate))), ca.file, None)
    with pytest.raises(AuthorityError, match=said):
        authority.issue(make_request(new_key(), "cam-1"), "cam-1", "device", 7.0)


def test_a_command_that_gives_another_name_is_found_out(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    EmbeddedCA(elsewhere, "company")
    text = SIGN.format(python=sys.executable, folder=str(elsewhere)).replace('os.environ["EDGELOOP_NAME"]', '"hub:x"')
    authority = CommandCA(command(tmp_path, text), elsewhere / "ca.crt", None)
    with pytest.raises(AuthorityError, match="for 'hub:x' instead of 'cam-1'"):
        authority.issue(make_request(new_key(), "cam-1"), "cam-1", "device", 7.0)
    with pytest.raises(BadRequest):
        authority.issue(b"none", "cam-1", "device", 7.0)


def test_amqtt_is_for_development_on_loopback_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartError, match=r"for development, on loopback, and 0\.0\.0\.0 is not loopback") as caught:
        EmbeddedBroker(Choice("amqtt"), tmp_path, host="0.0.0.0")
    assert caught.value.code == exit_codes.NO_BROKER
    with caplog.at_level(logging.WARNING):
        assert not EmbeddedBroker(Choice("amqtt"), tmp_path).mutual_tls
    assert "asks nobody who they are: for development" in caplog.text


def test_a_broker_that_asks_nobody_who_they_are_stays_on_loopback(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="would ask nobody who they are"):
        EmbeddedBroker(Choice("mosquitto", "mosquitto"), tmp_path, host="0.0.0.0")


def test_another_authoritys_list_is_looked_at_again(tmp_path: Path) -> None:
    """Its owner revokes there; the hub's broker has to hear of it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    EmbeddedCA(elsewhere, "company")
    crl = tmp_path / "crl.pem"
    crl.write_bytes(b"first")
    signs = command(tmp_path, SIGN.format(python=sys.executable, folder=str(elsewhere)))
    wanted = settings(tmp_path / "data", ca_command=signs, ca_file=elsewhere / "ca.crt", crl_file=crl)
    db = new_records(wanted.data)
    identities = Identities(wanted, db, Topics("default"), lambda: iter(()))
    reloads: list[bool] = []
    identities.access.reloads(reloads.append)
    identities.renew_own()
    assert reloads == []
    crl.write_bytes(b"second")
    identities.renew_own()
    assert reloads == [True]
    assert identities.access.files.crl is not None
    assert identities.access.files.crl.read_bytes() == b"second"
    db.close()
