"""The processing of a package that is there already, for one that shall be like it."""

from __future__ import annotations

import onnx

from edgeloop.package import Package
from model_export.errors import InvalidPackageError
from model_export.graphs.graph import all_nodes, attribute
from model_export.processing.steps import Processing, read_processing
from model_export.processing.text import TOKENIZER, VOCABULARY
from model_export.variants.likeness import Recipe


def of_package(package: Package) -> Processing:
    """What its recipe says, with the vocabulary that its graph holds.

    Raises:
        InvalidPackageError: it cannot be followed.
    """
    told = Recipe.of(package).processing
    if not told:
        return Processing()
    try:
        return read_processing(told, _vocabulary(package) if "text" in told else (), origin=package.name)
    except (ValueError, TypeError) as error:
        raise InvalidPackageError(
            f"what comes before the model of {package.name} cannot be made again: {error}",
            "build it anew, without --like",
        ) from error


def _vocabulary(package: Package) -> tuple[str, ...]:
    variant = next(iter(package.variants.values()))
    graph = onnx.load(package.root / variant.model_file, load_external_data=False).graph
    for node in all_nodes(graph):
        if node.op_type == TOKENIZER:
            return tuple(attribute(node, VOCABULARY, b"").decode().split("\n"))
    raise ValueError("its graph has no tokenizer")
