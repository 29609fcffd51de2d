"""A package that is to be written: what it is made of, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeloop.insights import Profile
from edgeloop.package.errors import PackageError
from edgeloop.package.index import check_path
from edgeloop.package.manifest import HeadSpec, OutputSpec, TensorSpec
from edgeloop.package.opening import Tensors
from edgeloop.package.picture import PictureSpec

if TYPE_CHECKING:
    import onnx  # a device opens packages and never writes one: it does not pay for the import


@dataclass(frozen=True)
class DraftVariant:
    """One variant to be written; ``model`` holds its tensors inside.

    ``provider_options`` are ONNX Runtime's own, as text; docs/reference/package.md lists those that a package may set.
    """

    name: str
    precision: str
    model: onnx.ModelProto
    ep: str = "CPUExecutionProvider"
    device: str = "cpu"
    provider_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Draft:
    """All that a package is made of.

    Attributes:
        name: of the package.
        version: of the package.
        variants: in the order in which ONNX Runtime alone should try them.
        labels: names of the classes.
        inputs: of every variant.
        outputs: of every variant, with their roles.
        golden_inputs: by name.
        golden_outputs: for each precision, reference outputs by name.
        features: name of the output with the head's input, or None.
        head: the last linear layer, or None.
        profile: what normal looks like, or None.
        validation: inputs by name and true labels int64 [N], or None.
        metrics: for each variant.
        lineage: where the model comes from.
        needs: of a device besides ONNX Runtime; of `needs.INSTALL`.
        picture: how a picture is made small for the input, or None.
        task: what the model does.
        description: one sentence for people.
        extra: further fields of edgeloop's metadata.
    """

    name: str
    version: str
    variants: Sequence[DraftVariant]
    labels: Sequence[str]
    inputs: Sequence[TensorSpec]
    outputs: Sequence[OutputSpec]
    golden_inputs: Tensors
    golden_outputs: Mapping[str, Tensors]
    features: str | None = None
    head: HeadSpec | None = None
    profile: Profile | None = None
    validation: tuple[Tensors, npt.NDArray[np.int64]] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    picture: PictureSpec | None = None
    task: str = "classification"
    description: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Hold it to itself.

        Raises:
            PackageError: it contradicts itself.
        """
        names = [check_path(variant.name) for variant in self.variants]
        if not names or len({name.casefold() for name in names}) != len(names):
            raise PackageError(f"a package needs one or more variants with names of their own, not {names}")
        if lacking := {variant.precision for variant in self.variants} - set(self.golden_outputs):
            raise PackageError(f"the golden outputs of {min(lacking)} are missing; no device could check that variant")
