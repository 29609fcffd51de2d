"""The bill of materials of a release: CycloneDX 1.6, as JSON.

It names the model, what it was made of by hash, and the libraries that made it with what those need, as they were
installed, with their licences: what a scanner of vulnerabilities or licences wants to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING

from edgeloop.provenance.origin import Material, Origin

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License


def bill_of_materials(origin: Origin) -> bytes:
    """The bill of materials of a release that was made just now, on this machine."""
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import ComponentType, Pedigree
    from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    model = _component(
        ComponentType.MACHINE_LEARNING_MODEL, origin.name, origin.version, origin.digest, licence=origin.licence
    )
    needs = _installed(origin.tools)
    libraries = {name: _library(name) for name in sorted(needs)}
    materials = [_material(material) for material in origin.materials]
    bases = [part for part, found in zip(materials, origin.materials, strict=True) if found.kind == "release"]
    model.pedigree = Pedigree(ancestors=bases) if bases else None
    model.properties = [Property(name="edgeloop:builder", value=origin.builder)]
    bom = Bom(
        metadata=BomMetaData(
            component=model,
            tools=ToolRepository(components=[libraries["edgeloop"]] if "edgeloop" in libraries else []),
            lifecycles=[PredefinedLifecycle(LifecyclePhase.BUILD)],
            timestamp=datetime.fromtimestamp(origin.finished, UTC),
        ),
        components=[*(part for part in materials if part not in bases), *libraries.values()],
    )
    direct = [library for name, library in libraries.items() if name in {_plain(tool) for tool in origin.tools}]
    bom.register_dependency(model, [*(part for part in materials if part not in bases), *direct])
    for name, library in libraries.items():
        bom.register_dependency(library, [libraries[need] for need in needs[name]])
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1).encode()


def _component(kind: object, name: str, version: str | None, digest: str, *, licence: str = "") -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component

    sha256 = HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))
    return Component(
        type=kind,  # type: ignore[arg-type]  # one of ComponentType, which is imported when it is needed
        name=name,
        version=version,
        bom_ref=digest,
        hashes=[sha256],
        licenses=_licences([licence]),
    )


def _material(material: Material) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import ComponentType

    kind = ComponentType.DATA if material.kind == "data" else ComponentType.MACHINE_LEARNING_MODEL
    found = _component(kind, material.name, None, f"sha256:{material.sha256}", licence=material.licence)
    found.properties = [Property(name=f"edgeloop:{name}", value=str(value)) for name, value in material.facts.items()]
    return found


def _library(name: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    found = metadata.metadata(name)
    version = found["Version"]
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f"pkg:pypi/{name}@{version}",
        purl=PackageURL("pypi", None, name, version),
        licenses=_licences(_said(found)),
    )


def _said(found: metadata.PackageMetadata) -> list[str]:
    """What a distribution says of its licence: an expression, else what SPDX knows by name, else its classifiers."""
    from cyclonedx.spdx import is_supported_id

    for field in ("License-Expression", "License"):
        for text in found.get_all(field) or ():
            if field == "License-Expression" or is_supported_id(text):
                return [text]
    classifiers = found.get_all("Classifier") or ()
    return [value.split("::")[-1].strip() for value in classifiers if value.startswith("License :: ")]


def _licences(said: Iterable[str]) -> list[License]:
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [LicenseFactory().make_from_string(text) for text in dict.fromkeys(said) if text]


def _installed(tools: Mapping[str, str]) -> dict[str, list[str]]:
    """Distribution → what it needs, of the tools and all that they need, as far as it is installed here."""
    from packaging.requirements import Requirement

    found: dict[str, list[str]] = {}
    waiting = [_plain(tool) for tool in tools]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            requires = [Requirement(text) for text in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:
            continue
        needs = [_plain(need.name) for need in requires if need.marker is None or need.marker.evaluate({"extra": ""})]
        found[name] = sorted(set(needs))
        waiting += needs
    return {name: [need for need in needs if need in found] for name, needs in found.items()}


def _plain(name: str) -> str:
    """A distribution's name as PyPI writes it."""
    return re.sub("[-_.]+", "-", name).lower()
