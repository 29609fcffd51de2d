"""What the bytes of a package are: tensors and graphs of its variants, and the rest."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto

from edgeloop.package import Package, required_paths
from edgeloop.package.manifest import asset_folder


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file of its own.

    Attributes:
        name: the initializer's.
        datatype: as ONNX names it.
        shape: its lengths.
        bytes: of its file.
        variants: that read this file.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    bytes: int
    variants: tuple[str, ...]


@dataclass(frozen=True)
class Sizes:
    """Where the bytes are.

    Attributes:
        total: of the package.
        device: what a device fetches that may run every variant.
        graphs: variant → bytes of its graph, with the small tensors in it.
        fetched: variant → bytes that a device fetches for it alone.
        tensors: the largest first.
        validation: bytes of the validation set, which a device never fetches.
    """

    total: int
    device: int
    graphs: dict[str, int]
    fetched: dict[str, int]
    tensors: tuple[Tensor, ...]
    validation: int


def sizes(package: Package) -> Sizes:
    """The bytes of an audited package."""
    index = package.index.by_path
    readers: dict[str, list[str]] = {}
    told: dict[str, TensorProto] = {}
    for name, spec in package.variants.items():
        if spec.weights_uri is None:
            continue
        for tensor in onnx.load(package.root / spec.model_file, load_external_data=False).graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    path = f"{asset_folder(spec.weights_uri)}/{entry.value}"
                    readers.setdefault(path, []).append(name)
                    told[path] = tensor
    tensors = [
        Tensor(
            told[path].name,
            TensorProto.DataType.Name(told[path].data_type),
            tuple(told[path].dims),
            index[path].size,
            tuple(dict.fromkeys(names)),
        )
        for path, names in readers.items()
    ]
    validation = 0
    if package.meta.validation is not None:
        folder = asset_folder(package.meta.validation)
        validation = sum(entry.size for entry in package.index.entries if entry.path.startswith(f"{folder}/"))

    def fetched(variants: list[str] | None) -> int:
        return sum(entry.size for entry in required_paths(package.manifest, package.index, variants))

    return Sizes(
        total=package.index.total_bytes,
        device=fetched(None),
        graphs={name: index[spec.model_file].size for name, spec in package.variants.items()},
        fetched={name: fetched([name]) for name in package.variants},
        tensors=tuple(sorted(tensors, key=lambda tensor: (-tensor.bytes, tensor.name))),
        validation=validation,
    )
