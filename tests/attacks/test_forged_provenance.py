"""Attacks on what is said of how a release was made: forged, exchanged, endless. Each is refused by tool and hub."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import Key

from cloud_hub.attestations import Unwitnessed
from edgeloop.package import Package
from edgeloop.provenance import (
    Material,
    Origin,
    ProvenanceError,
    bill_of_materials,
    parse,
    read,
    sign,
    statement,
    unsigned,
)
from edgeloop.trust import keys
from model_export.errors import UnprovenError
from model_export.trust.provenance import Documents, check
from tests.doubles.packages import make_package
from tests.unit.hub.api_kit import ApiHub

PUBLISHER, THIEF = keys.generate(), keys.generate()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("package") / "small")


@pytest.fixture(scope="module")
def documents(package: Package) -> Documents:
    return made(package.digest)


@pytest.fixture
def api(tmp_path: Path, package: Package) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path / "data")
    hub.publish(package)
    yield hub
    hub.close()


def made(digest: str) -> Documents:
    source = Material("model.onnx", "model", "b" * 64)
    origin = Origin("digits", "1", digest, "model-export", {}, (source,), {"edgeloop": "0.1.0"}, 1.7e9, 1.7e9)
    bill = bill_of_materials(origin)
    return Documents(bill, sign(unsigned(statement(origin, bill)), PUBLISHER))


def changed(documents: Documents, change: Callable[[dict[str, Any]], None]) -> Documents:
    envelope = json.loads(documents.provenance)
    change(envelope)
    return Documents(documents.bill, json.dumps(envelope).encode())


def other_builder(envelope: dict[str, Any]) -> None:
    payload = base64.b64decode(envelope["payload"]).replace(b"model.onnx", b"other.onnx")
    envelope["payload"] = base64.b64encode(payload).decode()


def other_type(envelope: dict[str, Any]) -> None:
    envelope["payloadType"] = "text/plain"


def thief_under_the_publisher_s_name(envelope: dict[str, Any]) -> None:
    stolen = json.loads(sign(json.dumps(envelope | {"signatures": []}).encode(), THIEF))["signatures"][0]
    envelope["signatures"] = [stolen | {"keyid": PUBLISHER.public_key.keyid}]


def twice(envelope: dict[str, Any]) -> None:
    envelope["signatures"] *= 2


def thousands(envelope: dict[str, Any]) -> None:
    envelope["signatures"] = [envelope["signatures"][0] | {"keyid": f"{n:064x}"} for n in range(5000)]


FORGERIES = [other_builder, other_type, thief_under_the_publisher_s_name, twice, thousands]


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_signature(package: Package, documents: Documents, forgery: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(UnprovenError):
        check(changed(documents, forgery), package.digest, package.name, [PUBLISHER.public_key])


def test_a_good_provenance_of_another_release(api: ApiHub, package: Package) -> None:
    other = made("sha256:" + "7" * 64)
    with pytest.raises(UnprovenError, match="the provenance is that of"):
        check(other, package.digest, package.name, [PUBLISHER.public_key])
    answer = api.put(f"releases/{package.digest}/attestations/provenance", other.provenance, 422)
    assert "the provenance of sha256:777" in answer["error"]
    assert api.get(f"releases/{package.digest}")["attestations"] == []


def test_another_bill_under_a_good_provenance(api: ApiHub, package: Package, documents: Documents) -> None:
    place = f"releases/{package.digest}/attestations"
    api.put(f"{place}/sbom", documents.bill, 404)  # before the provenance nothing says whose it is
    api.put(f"{place}/provenance", documents.provenance, 204)
    api.put(f"{place}/sbom", documents.bill.replace(b"model.onnx", b"other.onnx"), 409)
    api.put(f"{place}/sbom", documents.bill, 204)
    assert api.http.get(f"/api/v1/{place}/sbom").content == documents.bill
    assert api.get(f"releases/{package.digest}/lineage")[0]["attestations"] == ["provenance", "sbom"]


def test_the_provenance_of_a_release_that_is_not_there_and_kinds_that_are_none(
    api: ApiHub, documents: Documents
) -> None:
    for path in (f"sha256:{'0' * 64}/attestations/provenance", "..%2f..%2fhub.db/attestations/sbom"):
        api.put(f"releases/{path}", documents.provenance, 404)
    for kind in ("..", "..%2f..%2fhub.db", "provenance.new", "a" * 5000):
        assert api.http.get(f"/api/v1/releases/{'sha256:' + '0' * 64}/attestations/{kind}").status_code == 404


BODIES = {
    "nothing": b"",
    "a list": b"[]",
    "nested": b'{"a":' * 50_000,
    "no envelope": b'{"payload": "eyJ9", "payloadType": "application/vnd.in-toto+json"}',
    "no base64": b'{"payload": 7, "payloadType": "application/vnd.in-toto+json", "signatures": []}',
    "no object inside": b'{"payload": "W10=", "payloadType": "application/vnd.in-toto+json", "signatures": []}',
    "signatures that are none": b'{"payload": "", "payloadType": "application/vnd.in-toto+json", "signatures": [7]}',
    "a key twice": b'{"payload": "e30=", "payload": "e30=", "payloadType": "", "signatures": []}',
}


@pytest.mark.parametrize("name", BODIES)
def test_bytes_that_are_no_provenance(name: str) -> None:
    with pytest.raises(ProvenanceError):
        parse(read(BODIES[name]).payload)


def test_bytes_that_are_no_provenance_sent_to_a_hub(api: ApiHub, package: Package) -> None:
    for body in BODIES.values():
        api.put(f"releases/{package.digest}/attestations/provenance", body, 422)
    api.put(f"releases/{package.digest}/attestations/provenance", b" " * ((4 << 20) + 1), 413)
    assert api.get(f"releases/{package.digest}")["attestations"] == []


def test_nobody_signs_for_a_hub_that_asks_for_signatures(api: ApiHub, package: Package, documents: Documents) -> None:
    """A hub that knows the publisher's keys keeps what they signed, and nothing else."""

    class Known(Unwitnessed):
        def keys(self, model: str, *, retrained: bool) -> Sequence[Key]:
            return [PUBLISHER.public_key]

    api.hub.attestations._witness = Known()
    place = f"releases/{package.digest}/attestations/provenance"
    api.put(place, unsigned(read(documents.provenance).payload), 422)
    api.put(place, changed(documents, thief_under_the_publisher_s_name).provenance, 422)
    api.put(place, documents.provenance, 204)
