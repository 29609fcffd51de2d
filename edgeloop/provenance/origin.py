"""How a release came about, and the in-toto statement that says so.

The statement is of in-toto 1 (https://in-toto.io/Statement/v1) with SLSA's provenance 1 as its predicate
(https://slsa.dev/provenance/v1): tools that know those read it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Any

from edgeloop.package.documents import canonical_json, read_json
from edgeloop.package.errors import PackageError
from edgeloop.provenance.envelope import MAX_BYTES, ProvenanceError
from edgeloop.records import dataclass

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
#: Who made it: the tool of publishers, or a hub that has fitted a new head. They name no place in the network.
BUILDERS = ("model-export", "cloud-hub")
#: Name of the bill of materials among the by-products.
BILL = "sbom.cdx.json"
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Material:
    """What a release was made of.

    Attributes:
        name: a file's name, a release's name and version, or what the sums are.
        kind: ``model``, ``release`` (of which it is a new version), or ``data``.
        sha256: of its bytes, 64 hex digits.
        facts: what else is known of it: rows, labels, an interval.
        licence: SPDX expression, "" where nobody has said.
    """

    name: str
    kind: str
    sha256: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""


@dataclass(frozen=True)
class Origin:
    """All that is told of how a release was made.

    Attributes:
        name: of the release.
        version: of the release.
        digest: of the release, ``sha256:…``.
        builder: one of `BUILDERS`.
        parameters: what was asked for, as JSON values.
        materials: what it was made of.
        tools: name → version of the programs and libraries that made it.
        started: unix seconds.
        finished: unix seconds.
        licence: SPDX expression of the model, "" where nobody has said.
    """

    name: str
    version: str
    digest: str
    builder: str
    parameters: Mapping[str, Any]
    materials: tuple[Material, ...]
    tools: Mapping[str, str]
    started: float
    finished: float
    licence: str = ""


@dataclass(frozen=True)
class Statement:
    """What a statement says; only who has signed it makes it worth something.

    Attributes:
        digest: of the release, ``sha256:…``.
        subject: its name and version.
        builder: one of `BUILDERS`.
        materials: name → SHA-256 of what it was made of.
        bill: SHA-256 of the bill of materials.
        raw: the whole statement.
    """

    digest: str
    subject: str
    builder: str
    materials: Mapping[str, str]
    bill: str
    raw: Mapping[str, Any]


def statement(origin: Origin, bill: bytes) -> bytes:
    """The statement of a release and its bill of materials, as canonical JSON."""
    materials = [
        {"name": material.name, "digest": {"sha256": material.sha256}, "annotations": {"kind": material.kind}}
        | ({"annotations": {"kind": material.kind, **material.facts}} if material.facts else {})
        for material in origin.materials
    ]
    libraries = [{"uri": f"pkg:pypi/{name}@{version}", "name": name} for name, version in sorted(origin.tools.items())]
    return canonical_json(
        {
            "_type": STATEMENT,
            "subject": [
                {"name": f"{origin.name} {origin.version}", "digest": {"sha256": origin.digest.removeprefix("sha256:")}}
            ],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": f"urn:edgeloop:{origin.builder}:1",
                    "externalParameters": origin.parameters,
                    "resolvedDependencies": materials + libraries,
                },
                "runDetails": {
                    "builder": {"id": f"urn:edgeloop:{origin.builder}", "version": dict(origin.tools)},
                    "metadata": {"startedOn": _time(origin.started), "finishedOn": _time(origin.finished)},
                    "byproducts": [{"name": BILL, "digest": {"sha256": hashlib.sha256(bill).hexdigest()}}],
                },
            },
        }
    )


def parse(payload: bytes) -> Statement:
    """Read a statement from outside.

    Raises:
        ProvenanceError: it is no statement of one release.
    """
    try:
        raw = read_json(payload, "the provenance", max_bytes=MAX_BYTES)
        (subject,), predicate = raw["subject"], raw["predicate"]
        definition, run = predicate["buildDefinition"], predicate["runDetails"]
        bills = [product["digest"]["sha256"] for product in run["byproducts"] if product["name"] == BILL]
        materials = {
            str(found["name"]): str(found["digest"]["sha256"])
            for found in definition["resolvedDependencies"]
            if "digest" in found
        }
        builder = str(run["builder"]["id"]).removeprefix("urn:edgeloop:")
        hashes = [subject["digest"]["sha256"], *bills, *materials.values()]
        if not all(isinstance(value, str) and _SHA256.fullmatch(value) for value in hashes):
            raise ValueError("a hash is not 64 hex digits")
        if (raw["_type"], raw["predicateType"]) != (STATEMENT, PREDICATE) or builder not in BUILDERS or len(bills) != 1:
            raise ValueError("it is of another type, or of another tool")
        return Statement(f"sha256:{hashes[0]}", str(subject["name"]), builder, materials, bills[0], raw)
    except (PackageError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProvenanceError(f"the provenance is no statement of how a release was made: {error}") from error


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
