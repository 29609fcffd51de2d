"""Opening a package folder: typed access to what lies in it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from edgeloop.insights import Profile
from edgeloop.package.documents import MAX_JSON_BYTES
from edgeloop.package.errors import PackageError
from edgeloop.package.index import Index
from edgeloop.package.manifest import MANIFEST, Manifest, Metadata, VariantSpec, asset_folder
from edgeloop.package.texts import unpacked
from edgeloop.records import dataclass

Tensors = dict[str, npt.NDArray[np.generic]]
#: File names inside the assets of golden cases and validation data.
GOLDEN_INPUTS, VALIDATION = "inputs.safetensors", "validation.safetensors"
#: Name under which the true labels lie among the validation tensors.
LABELS = "edgeloop.labels"


def golden_outputs_file(precision: str) -> str:
    """Name of the file with the reference outputs of one precision."""
    return f"outputs-{precision}.safetensors"


def read_manifest(root: Path) -> Manifest:
    """The manifest of a folder; never more of the file than a manifest may have.

    Raises:
        PackageError: there is none, or it cannot be used.
    """
    path = root / MANIFEST
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise PackageError(f"{MANIFEST} is no regular file; a package holds files and folders only")
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise PackageError(f"{root} is no package: {MANIFEST} cannot be read ({error.strerror})") from error
    return Manifest.parse(data)


@dataclass(frozen=True)
class Golden:
    """Inputs by name, and for each precision the reference outputs by name; rows are cases."""

    inputs: Tensors
    outputs: dict[str, Tensors]


@dataclass(frozen=True)
class Package:
    """A package on disk.

    Attributes:
        root: its folder. On a device only a part of the files may be there.
        manifest: what it says of itself.
        index: all files of the release, also those that are not here.
    """

    root: Path
    manifest: Manifest
    index: Index

    @classmethod
    def open(cls, root: Path, *, index: Index | None = None) -> Package:
        """Open a folder; it is not audited.

        Args:
            root: the folder.
            index: of the release, when the folder holds only a part of it; None: index the folder.

        Raises:
            PackageError: there is no readable manifest, or the folder holds what no package may.
        """
        root = Path(root)
        return cls(root, read_manifest(root), index or Index.of_folder(root))

    @property
    def name(self) -> str:
        """Name of the package: what clients call the model."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Version of the package."""
        return self.manifest.version

    @property
    def variants(self) -> dict[str, VariantSpec]:
        """Variants by name."""
        return dict(self.manifest.variants)

    @property
    def meta(self) -> Metadata:
        """Edgeloop's part of the manifest."""
        return self.manifest.meta

    @property
    def digest(self) -> str:
        """The release's identity."""
        return self.index.digest

    def asset(self, uri: str) -> Path:
        """Folder of a shared asset."""
        return self.root / asset_folder(uri)

    def golden(self) -> Golden:
        """The golden cases of every precision whose reference is here.

        Raises:
            PackageError: they are missing or unreadable.
        """
        outputs = self.asset(self.meta.golden["outputs"])
        precisions = dict.fromkeys(variant.precision for variant in self.manifest.variants.values())
        found = {p: _tensors(path) for p in precisions if (path := outputs / golden_outputs_file(p)).is_file()}
        return Golden(self._inputs(self.asset(self.meta.golden["inputs"]) / GOLDEN_INPUTS), found)

    def profile(self) -> Profile | None:
        """What normal looks like, or None.

        Raises:
            InsightsError: the files are no profile.
            PackageError: they are not here.
        """
        if self.meta.profile is None:
            return None
        profile = self.meta.profile
        try:
            return Profile.load(self.asset(profile["bins"]), self.asset(profile["reference"]))
        except OSError as error:
            raise PackageError(f"the profile cannot be read: {error}") from error

    def validation(self) -> tuple[Tensors, npt.NDArray[np.int64]] | None:
        """Validation inputs by name and true labels int64 [N], or None where the package has none or it is not here."""
        if self.meta.validation is None or not self.asset(self.meta.validation).is_dir():
            return None
        tensors = self._inputs(self.asset(self.meta.validation) / VALIDATION)
        try:
            labels = tensors.pop(LABELS).astype(np.int64)
        except KeyError as error:
            raise PackageError(f"{VALIDATION}: the tensor {LABELS} is missing") from error
        return tensors, labels

    def _inputs(self, path: Path) -> Tensors:
        """Rows of inputs by name; what the manifest calls BYTES are texts again."""
        texts = {spec.name for spec in self.meta.inputs if spec.datatype == "BYTES"}
        return {
            name: unpacked(f"{path.name}, {name}", array) if name in texts else array
            for name, array in _tensors(path).items()
        }

    @cached_property
    def _head_files(self) -> tuple[Path, Path]:
        head = self.meta.head
        if head is None:
            raise PackageError(f"{self.name} has no head that is known; it cannot be retrained from statistics")
        folder = self.asset(next(v.weights_uri for v in self.manifest.variants.values() if v.weights_uri is not None))
        return folder / f"{head.weight}.bin", folder / f"{head.bias}.bin"

    def head_arrays(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The head's weight float32 [K, F] and bias float32 [K].

        Raises:
            PackageError: the package has no head, or its files are not here.
        """
        weight_file, bias_file = self._head_files
        try:
            weight, bias = (np.fromfile(path, dtype="<f4") for path in (weight_file, bias_file))
        except OSError as error:
            raise PackageError(f"the head's tensors cannot be read: {error}") from error
        if not len(bias) or not len(weight) or len(weight) % len(bias):
            raise PackageError(f"the head's {weight_file.name} and {bias_file.name} do not belong to one another")
        weight = weight.reshape(len(bias), -1) if self._transposed else weight.reshape(-1, len(bias)).T
        return np.ascontiguousarray(weight), bias

    @property
    def _transposed(self) -> bool:
        return self.meta.head is not None and self.meta.head.transposed


def _tensors(path: Path) -> Tensors:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise PackageError(f"{path.name} cannot be read: {error}") from error
