"""The agent renews its certificate at a real hub; and it fetches a release over HTTPS, as the device that it is."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from edge_agent.identity import Identity, TlsOf, load
from edge_agent.identity.enrol import enrol
from edge_agent.identity.renewal import Renewal, renew
from edge_agent.ports import Vouched
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.errors import Transient
from edge_agent.updates.fetch import Fetcher, FetchLimits
from edge_agent.updates.rules import Offer
from edgeloop.package import Index
from edgeloop.protocol.enrolment import EnrolmentToken
from edgeloop.runtime import CPU
from tests.doubles.enrolling import Applicant
from tests.doubles.packages import make_package
from tests.integration.hub_process import wait_for
from tests.unit.hub.api_kit import ApiHub

#: Begins ten minutes before it is made and ends three minutes after: at once two thirds are over.
SHORT_DAYS = 0.002


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path_factory.mktemp("hub") / "data", insecure=False, certificate_days=SHORT_DAYS, request_rate=0)
    hub.clock.now = time.time()  # certificates are made by the system's
    yield hub
    hub.close()


def enrolled(hub: ApiHub, folder: Path, name: str, **more: object) -> Identity:
    token = hub.post("enrolments", {"device": name}, 201)["token"]
    return enrol(folder, name, str(hub.http.base_url), EnrolmentToken.parse(token), **more)  # type: ignore[arg-type]


def serial(identity: Identity) -> int:
    return x509.load_pem_x509_certificate(identity.certificate.read_bytes()).serial_number


@pytest.mark.parametrize("clock", ["right", "in 1970"])
def test_a_certificate_that_is_due_is_renewed_with_the_same_key(hub: ApiHub, tmp_path: Path, clock: str) -> None:
    before = enrolled(hub, tmp_path, f"dev-{clock[-4:]}")
    key, old = before.key.read_bytes(), serial(before)
    said: list[tuple[str, bool]] = []
    now = {"right": before.ends, "in 1970": 5.0}[clock]
    renewal = Renewal(tmp_path, lambda what, trouble: said.append((what, trouble)), clock=lambda: now)
    renewal.start()
    try:
        wait_for(lambda: said, 60, "the renewal")
    finally:
        renewal.stop()
    assert said[0] == ("the certificate was renewed", False)
    after = load(tmp_path)
    assert after is not None
    assert serial(after) != old
    assert after.key.read_bytes() == key
    assert after.ends >= before.ends  # certificates count whole seconds
    assert dataclasses.replace(after, begins=before.begins, ends=before.ends) == before


def test_one_that_cannot_be_renewed_says_why_and_stays(hub: ApiHub, tmp_path: Path) -> None:
    identity = enrolled(hub, tmp_path, "dev-revoked")
    hub.post("devices/dev-revoked/revoke", {}, 204)
    said: list[tuple[str, bool]] = []
    renewal = Renewal(tmp_path, lambda what, trouble: said.append((what, trouble)), clock=lambda: identity.ends)
    renewal.start()
    try:
        wait_for(lambda: said, 60, "what is wrong")
    finally:
        renewal.stop()
    assert said[0][1]
    assert "was revoked" in said[0][0]
    assert renewal.trouble == said[0][0]
    assert load(tmp_path) == identity


def test_a_key_outside_of_the_data_folder_is_used_and_never_copied(hub: ApiHub, tmp_path: Path) -> None:
    """As a TPM's is: its owner makes the request, which is sent again at each renewal."""
    owner = Applicant("dev-chip", tmp_path / "chip")
    data = tmp_path / "data"
    data.mkdir()
    identity = enrolled(hub, data, "dev-chip", key=owner.key, request=owner.request().encode())
    assert identity.key == owner.key
    secret = owner.key.read_bytes()
    assert not any(secret in file.read_bytes() for file in data.rglob("*") if file.is_file())
    old = serial(identity)
    assert serial(renew(data)) != old


def test_a_release_is_fetched_over_https_by_a_device_with_rights_and_by_no_other(hub: ApiHub, tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    digest = hub.publish(package)
    identity = enrolled(hub, tmp_path / "data", "dev-fetch")
    offer = Offer(digest, "small", "1", None, "", len(package.index.to_bytes()))
    files = ReleaseFiles(tmp_path / "data")

    def fetcher(tls: TlsOf | None) -> Fetcher:
        return Fetcher(
            files,
            FetchLimits(1 << 30, 0),
            hub=identity.hub,
            providers=[CPU],
            required=[],
            received=lambda _size: None,
            make_room=lambda _spare: None,
            interrupted=lambda _wait_s: False,
            tls=tls,
        )

    with fetcher(None) as stranger, pytest.raises(Transient, match="certificate"):
        stranger.fetch(offer, Vouched())
    with fetcher(TlsOf(identity)) as device:
        assert isinstance(device.fetch(offer, Vouched()).index, Index)
    other = enrolled(hub, tmp_path / "other", "dev-gone")
    hub.post("devices/dev-gone/revoke", {}, 204)
    files = ReleaseFiles(tmp_path / "other")
    with fetcher(TlsOf(other)) as gone, pytest.raises(Transient, match="403"):
        gone.fetch(offer, Vouched())
