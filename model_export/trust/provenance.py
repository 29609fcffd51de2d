"""What lies beside a package: its bill of materials, and the provenance that carries the bill's hash.

``NAME.sbom.json`` and ``NAME.provenance.json`` beside the folder ``NAME``: in it, they would be a part of what they
speak of. A build writes both; whoever publishes signs the second.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key, Signer

from edgeloop.package import Package
from edgeloop.provenance import (
    Material,
    Origin,
    ProvenanceError,
    Statement,
    bill_of_materials,
    parse,
    read,
    sign,
    statement,
    unsigned,
    verify,
)
from model_export.errors import DestinationError, UnprovenError


@dataclass(frozen=True)
class Documents:
    """The bill of materials and the envelope with the provenance, byte for byte."""

    bill: bytes
    provenance: bytes

    def signed(self, *signers: Signer) -> Documents:
        """The same with more signatures."""
        provenance = self.provenance
        for signer in signers:
            provenance = sign(provenance, signer)
        return Documents(self.bill, provenance)

    @property
    def is_signed(self) -> bool:
        """Whether anybody has signed."""
        return bool(read(self.provenance).signatures)


@dataclass(frozen=True)
class Licences:
    """SPDX expressions of what only people know; "" where nobody has said."""

    model: str = ""
    data: str = ""


def bill_path(package: Path) -> Path:
    """Where a package's bill of materials is."""
    return package.with_name(f"{package.name}.sbom.json")


def provenance_path(package: Path) -> Path:
    """Where a package's provenance is."""
    return package.with_name(f"{package.name}.provenance.json")


def describe(package: Package, asked: Mapping[str, Any], started: float, licences: Licences) -> Documents:
    """The documents of a package that was built just now, unsigned.

    Args:
        package: as it was written.
        asked: the options of the build, as JSON values.
        started: unix seconds.
        licences: of model and data.
    """
    lineage = package.meta.lineage
    source, data = lineage["source"], lineage["data"]
    rows = {name: data[name] for name in ("rows", "calibration", "validation")}
    origin = Origin(
        name=package.name,
        version=package.version,
        digest=package.digest,
        builder="model-export",
        parameters=asked,
        materials=(
            Material(source["file"], "model", source["sha256"], {"source": source["kind"]}, licences.model),
            Material(data["file"], "data", data["sha256"], rows, licences.data),
        ),
        tools=lineage["tools"],
        started=started,
        finished=time.time(),
        licence=licences.model,
    )
    bill = bill_of_materials(origin)
    return Documents(bill, unsigned(statement(origin, bill)))


def write(package: Path, documents: Documents) -> None:
    """Write the documents beside a package; each appears whole.

    Raises:
        DestinationError: they cannot be written there.
    """
    try:
        for path, data in ((bill_path(package), documents.bill), (provenance_path(package), documents.provenance)):
            new = path.with_name(f".{path.name}.new")
            new.write_bytes(data)
            new.replace(path)
    except OSError as error:
        raise DestinationError(
            f"{package.name} has no provenance: nothing can be written beside it: {error.strerror or error}",
            "free space, or build it in another folder",
        ) from error


def find(package: Path) -> Documents | None:
    """The documents beside a package; None where one of them is missing."""
    try:
        return Documents(bill_path(package).read_bytes(), provenance_path(package).read_bytes())
    except OSError:
        return None


def check(documents: Documents, digest: str, model: str, keys: Sequence[Key]) -> tuple[Statement, str]:
    """What the provenance of a release says, and the id of the key that vouches for it.

    Args:
        documents: from beside the package, or from a hub.
        digest: of the release that they have to be about.
        model: its name, by which the keys were chosen.
        keys: of whom the provenance is believed.

    Raises:
        UnprovenError: it is about another release or another bill of materials, or none of the keys has signed it.
    """
    try:
        payload, keyid = verify(documents.provenance, keys)
        said = parse(payload)
    except ProvenanceError as error:
        raise UnprovenError(str(error), "believe nothing of it; ask the publisher") from error
    if said.subject.rpartition(" ")[0] != model:
        raise UnprovenError(f"the provenance is that of {said.subject}, not of a {model}", "believe nothing of it")
    if said.digest != digest:
        raise UnprovenError(
            f"the provenance is that of {said.digest}, not of {digest}", "it was put here by mistake, or worse"
        )
    if said.bill != hashlib.sha256(documents.bill).hexdigest():
        raise UnprovenError("the bill of materials is not the one that the provenance names", "build the package again")
    return said, keyid
