"""The bill of materials and the provenance of a package, and who is believed about it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cyclonedx.schema
import jsonschema_rs
import pytest

from edgeloop.package import Package, audit
from edgeloop.provenance import read
from edgeloop.trust import keys
from model_export.errors import UnprovenError
from model_export.trust.provenance import Documents, Licences, bill_path, check, find, provenance_path
from tests.doubles import digits


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("built")
    report = digits.build(folder / "digits", licences=Licences("Apache-2.0", "CC-BY-4.0"))
    return Package.open(report.path)


@pytest.fixture(scope="module")
def documents(package: Package) -> Documents:
    found = find(package.root)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def bill(documents: Documents) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(documents.bill)
    return found


def statement(documents: Documents) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read(documents.provenance).payload)
    return found


def test_they_lie_beside_the_package_and_are_no_part_of_it(package: Package) -> None:
    assert bill_path(package.root).parent == provenance_path(package.root).parent == package.root.parent
    audit(package.root, index=package.index)


def test_the_same_build_again_has_the_same_digest_and_other_documents(
    package: Package, documents: Documents, tmp_path: Path
) -> None:
    again = digits.build(tmp_path / "digits", licences=Licences("MIT"))
    assert again.digest == package.digest
    found = find(again.path)
    assert found is not None and found.bill != documents.bill


def test_the_bill_is_cyclonedx(bill: dict[str, Any]) -> None:
    folder = Path(cyclonedx.schema.__file__).parent / "_res"
    read_schema = {path.name: json.loads(path.read_bytes()) for path in folder.glob("*.schema.json")}
    base = "http://cyclonedx.org/schema/"
    registry = jsonschema_rs.Registry([(base + name, schema) for name, schema in read_schema.items()])
    schema = read_schema["bom-1.6.SNAPSHOT.schema.json"]
    jsonschema_rs.Draft7Validator(schema, registry=registry).validate(bill)
    assert bill["specVersion"] == "1.6"


def test_the_bill_names_model_source_data_and_libraries(package: Package, bill: dict[str, Any]) -> None:
    model = bill["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": package.digest.removeprefix("sha256:")}]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    by_hash = {part["hashes"][0]["content"]: part for part in bill["components"] if "hashes" in part}
    lineage = package.meta.lineage
    assert by_hash[lineage["source"]["sha256"]]["type"] == "machine-learning-model"
    data = by_hash[lineage["data"]["sha256"]]
    assert data["type"] == "data" and data["licenses"] == [{"license": {"id": "CC-BY-4.0"}}]
    libraries = {part["name"]: part for part in bill["components"] if part["type"] == "library"}
    assert set(lineage["tools"]) <= set(libraries) and "numpy" in libraries  # what the tools need is there as well
    assert libraries["onnx"]["version"] == lineage["tools"]["onnx"]
    assert all(part["purl"] == f"pkg:pypi/{name}@{part['version']}" for name, part in libraries.items())
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in bill["dependencies"]}
    assert libraries["numpy"]["bom-ref"] in needs[libraries["onnx"]["bom-ref"]]


def test_the_provenance_is_slsa_s(package: Package, documents: Documents) -> None:
    said = statement(documents)
    assert (
        said["_type"] == "https://in-toto.io/Statement/v1" and said["predicateType"] == "https://slsa.dev/provenance/v1"
    )
    assert said["subject"] == [{"name": "digits 1.0.0", "digest": {"sha256": package.digest.removeprefix("sha256:")}}]
    built = said["predicate"]["buildDefinition"]
    assert built["externalParameters"]["name"] == "digits"
    named = {found["digest"]["sha256"] for found in built["resolvedDependencies"] if "digest" in found}
    assert named == {package.meta.lineage[part]["sha256"] for part in ("source", "data")}
    (product,) = said["predicate"]["runDetails"]["byproducts"]
    assert product["digest"]["sha256"] == hashlib.sha256(documents.bill).hexdigest()


def test_no_path_of_the_building_machine_is_told(package: Package, documents: Documents) -> None:
    for text in (documents.bill, read(documents.provenance).payload):
        assert str(package.root.parent).encode() not in text and str(Path.home()).encode() not in text


def test_a_publisher_is_believed_once_they_have_signed(package: Package, documents: Documents) -> None:
    publisher, stranger = keys.generate(), keys.generate()
    with pytest.raises(UnprovenError, match="nobody has signed"):
        check(documents, package.digest, package.name, [publisher.public_key])
    signed = documents.signed(publisher)
    said, keyid = check(signed, package.digest, package.name, [stranger.public_key, publisher.public_key])
    assert keyid == publisher.public_key.keyid and said.builder == "model-export"
    assert signed.signed(publisher) == signed
    both = signed.signed(stranger)
    assert check(both, package.digest, package.name, [stranger.public_key])[1] == stranger.public_key.keyid
    for wrong in ([stranger.public_key], []):
        with pytest.raises(UnprovenError, match=r"none of the keys|no key may"):
            check(signed, package.digest, package.name, wrong)


def test_another_release_s_provenance_is_none(package: Package, documents: Documents) -> None:
    publisher = keys.generate()
    with pytest.raises(UnprovenError, match="the provenance is that of"):
        check(documents.signed(publisher), "sha256:" + "0" * 64, "digits", [publisher.public_key])


def test_another_bill_is_none(package: Package, documents: Documents) -> None:
    publisher = keys.generate()
    signed = documents.signed(publisher)
    with pytest.raises(UnprovenError, match="not the one that the provenance names"):
        check(Documents(signed.bill + b"\n", signed.provenance), package.digest, package.name, [publisher.public_key])
