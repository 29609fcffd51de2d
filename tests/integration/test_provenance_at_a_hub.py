"""A signed release's provenance, from the publisher's key to somebody who knows nothing but the fleet's root."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud_hub.access.principals import Role
from edgeloop.package import Package, audit
from edgeloop.trust import keys, repository
from edgeloop.trust.names import ROOT, TARGETS
from model_export.cli import app
from model_export.exit_codes import ExitCode
from model_export.trust.provenance import bill_path, find
from tests.doubles import digits
from tests.doubles.people import People
from tests.unit.hub.api_kit import ApiHub


@dataclass
class Place:
    """A hub whose fleet signs, its people, a package, and the folder of somebody who has the root."""

    api: ApiHub
    people: People
    package: Package
    root: Path
    key: Path

    def run(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*arguments])
        return done.exit_code, done.output

    def verify(self, what: str) -> tuple[int, str]:
        hub = ("--hub", str(self.api.http.base_url), "--trust", str(self.root))
        return self.run("verify", what, "--provenance", *hub, "--json")

    def publish(self) -> tuple[int, str]:
        hub = ("--hub", str(self.api.http.base_url), "--trust", str(self.root))
        return self.run("publish", str(self.package.root), *hub, "--key", str(self.key), "--channel", "stable")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    api = ApiHub(tmp_path / "data", insecure=False)
    api.hub.releases._audit = lambda root, index: audit(root, index=index, allow_hard_links=True)
    package = Package.open(digits.build(tmp_path / "digits", precision=("fp32",)).path)
    people = People(api.get("trust"), api.clock.now, package.name)
    for role in (ROOT, TARGETS):
        api.put(f"trust/metadata/{role}", people.file(role))
    folder = tmp_path / "trust"
    folder.mkdir()
    (folder / "1.root.json").write_bytes(people.fleet.pinned)
    key = people.fleet.write_key(tmp_path, "publisher", people.fleet.publishers[package.name])
    monkeypatch.setenv("MODEL_EXPORT_TOKEN", api.token(Role.PUBLISHER))
    assert api.hub.identities is not None
    (tmp_path / "ca.pem").write_bytes(api.hub.identities.own.trust)
    monkeypatch.setenv("MODEL_EXPORT_CA_CERT", str(tmp_path / "ca.pem"))
    yield Place(api, people, package, folder, key)
    api.close()


def test_publish_signs_and_whoever_has_the_root_can_check(place: Place) -> None:
    code, told = place.publish()
    assert code == 0, told
    digest, publisher = place.package.digest, place.people.fleet.publishers[place.package.name]
    assert place.api.get(f"releases/{digest}/lineage")[0]["attestations"] == ["provenance", "sbom"]
    for what in (digest, str(place.package.root)):
        code, told = place.verify(what)
        assert code == 0, told
        found = json.loads(told[told.index("{") :])
        assert found.get("provenance", found)["key"] == publisher.public_key.keyid
    code, told = place.publish()  # again, and nothing has to be signed again
    assert code == 0, told


def test_a_publisher_who_is_one_no_more_is_not_believed(place: Place) -> None:
    assert place.publish()[0] == 0
    targets = repository.draft(place.people.fleet.targets, TARGETS, now=place.people.fleet.now)
    repository.set_keys(targets.signed, "releases.digits", [keys.generate().public_key], 1)
    place.api.put(f"trust/metadata/{TARGETS}", place.people.sign(TARGETS, targets))
    code, told = place.verify(place.package.digest)
    assert code == ExitCode.UNPROVEN and "none of the keys" in told


def test_a_hub_that_exchanges_the_bill_is_found_out(place: Place) -> None:
    assert place.publish()[0] == 0
    bill_path(place.package.root).unlink()
    assert find(place.package.root) is None
    path = place.api.hub.attestations._path(place.package.digest, "sbom")
    path.write_bytes(path.read_bytes().replace(b"Apache", b"Apathy"))
    for what in (place.package.digest, str(place.package.root)):
        code, told = place.verify(what)
        assert code == ExitCode.UNPROVEN and "bill of materials" in told
