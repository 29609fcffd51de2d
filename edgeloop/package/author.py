"""Writing packages: the one module that uses ONNX Runtime's model-package author, which is still experimental.

A package appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from edgeloop.insights import Profile
from edgeloop.package.appearing import appearing
from edgeloop.package.draft import Draft
from edgeloop.package.errors import PackageError
from edgeloop.package.manifest import COMPONENT, WEIGHTS_OPTION, Manifest, Metadata, VariantSpec
from edgeloop.package.opening import GOLDEN_INPUTS, LABELS, VALIDATION, Package, Tensors, golden_outputs_file
from edgeloop.package.texts import packed

MODEL_FILE = "model.onnx"


def write_package(dest: Path, draft: Draft) -> Package:
    """Write a package to ``dest``, which must not exist.

    Raises:
        PackageError: the destination exists, or the draft contradicts itself.
    """
    from edgeloop.package.tensor_files import split_tensors  # a hub revises heads and does without onnx

    draft.check()
    with appearing(Path(dest)) as (root, scratch):
        weights, graphs = split_tensors(draft, scratch)
        author = _Author(root, scratch)
        assets = {
            "weights": author.asset_of(weights),
            "golden_inputs": author.asset(lambda folder: _save(draft.golden_inputs, folder / GOLDEN_INPUTS)),
            "golden_outputs": author.asset(lambda folder: _save_outputs(draft.golden_outputs, folder)),
        }
        meta = Metadata(
            task=draft.task,
            labels=tuple(draft.labels),
            inputs=tuple(draft.inputs),
            outputs=tuple(draft.outputs),
            features=draft.features,
            head=draft.head,
            golden={"inputs": assets["golden_inputs"], "outputs": assets["golden_outputs"]},
            profile=author.profile(draft.profile),
            validation=None if draft.validation is None else author.validation(*draft.validation),
            metrics=draft.metrics,
            lineage=draft.lineage,
            needs=draft.needs,
            picture=draft.picture,
            extra=draft.extra,
        )
        variants = []
        for variant in draft.variants:
            folder = root / variant.name
            folder.mkdir()
            graph, tensors = graphs[variant.name]
            (folder / MODEL_FILE).write_bytes(graph)
            spec = VariantSpec(
                name=variant.name,
                directory=variant.name,
                ep=variant.ep,
                device=variant.device,
                precision=variant.precision,
                model_file=f"{variant.name}/{MODEL_FILE}",
                weights_uri=assets["weights"] if tensors else None,
                tensors=tensors,
                provider_options=variant.provider_options,
            )
            variants.append(spec)
        author.commit(draft.name, draft.version, draft.description, variants, meta)
        built = Package.open(root)
    return replace(built, root=Path(dest))


def revise_head(
    base: Package,
    dest: Path,
    *,
    weight: npt.NDArray[np.floating[Any]],
    bias: npt.NDArray[np.floating[Any]],
    golden_outputs: Mapping[str, Tensors],
    profile: Profile | None,
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
    version: str,
) -> Package:
    """The same package with another head; every file that does not change keeps its bytes.

    Args:
        base: a whole package.
        dest: folder of the new one; must not exist.
        weight: [K, F], written as float32.
        bias: [K], written as float32.
        golden_outputs: reference outputs of the new head, for each precision.
        profile: what is normal from now on.
        metrics: for each variant.
        lineage: where the new head comes from.
        version: of the new package.

    Raises:
        PackageError: the base has no head, or the shapes are not its own.
    """
    old_weight, old_bias = base.head_arrays()
    head = base.meta.head
    if head is None or weight.shape != old_weight.shape or bias.shape != old_bias.shape:
        raise PackageError(
            f"the new head is {weight.shape} and {bias.shape}; the package's is {old_weight.shape} and {old_bias.shape}"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise PackageError("the new head is not finite")
    if len(uris := {variant.weights_uri for variant in base.variants.values()}) != 1:
        raise PackageError(f"the variants' tensors lie in {len(uris)} assets; a new head needs them in one")
    stored = weight if head.transposed else weight.T
    with appearing(Path(dest)) as (root, scratch):
        author = _Author(root, scratch)
        old_uri = next(v.weights_uri for v in base.variants.values() if v.weights_uri is not None)

        def new_weights(folder: Path) -> None:
            shutil.copytree(base.asset(old_uri), folder, dirs_exist_ok=True)
            (folder / f"{head.weight}.bin").write_bytes(np.ascontiguousarray(stored, dtype="<f4").tobytes())
            (folder / f"{head.bias}.bin").write_bytes(np.ascontiguousarray(bias, dtype="<f4").tobytes())

        weights = author.asset(new_weights)
        meta = replace(
            base.meta,
            golden={
                "inputs": author.asset_of(base.asset(base.meta.golden["inputs"])),
                "outputs": author.asset(lambda folder: _save_outputs(golden_outputs, folder)),
            },
            profile=author.profile(profile),
            validation=None if base.meta.validation is None else author.asset_of(base.asset(base.meta.validation)),
            metrics=metrics,
            lineage=lineage,
        )
        variants = []
        for variant in base.variants.values():
            shutil.copytree(base.root / variant.directory, root / variant.directory)
            variants.append(replace(variant, weights_uri=weights if variant.weights_uri else None))
        author.commit(base.name, version, str(base.manifest.raw.get("description", "")), variants, meta)
        built = Package.open(root)
    return replace(built, root=Path(dest))


class _Author:
    """ONNX Runtime's author on one folder: assets first, then one commit with the rest."""

    def __init__(self, root: Path, scratch: Path) -> None:
        # The runtime's package turns telemetry off; here onnxruntime only writes JSON, but it is imported all the same.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        self._ort, self._root, self._scratch = onnxruntime, root, scratch
        self._sources: list[Path] = []

    def asset(self, write: Callable[[Path], None]) -> str:
        """Let ``write`` fill a folder and make it a shared asset; returns its URI."""
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        write(folder)
        return self.asset_of(folder)

    def asset_of(self, folder: Path) -> str:
        """Make a folder a shared asset; returns its URI."""
        self._sources.append(folder)
        return str(self._ort.ModelPackage.compute_directory_hash(str(folder)))

    def profile(self, profile: Profile | None) -> dict[str, str] | None:
        """Two assets: the bins, which a new head leaves as they are, and the reference."""
        if profile is None:
            return None
        bins, reference = (Path(tempfile.mkdtemp(dir=self._scratch)) for _ in range(2))
        profile.save(bins, reference)
        return {"bins": self.asset_of(bins), "reference": self.asset_of(reference)}

    def validation(self, inputs: Tensors, labels: npt.NDArray[np.int64]) -> str:
        """The hub's validation set."""
        tensors = {**inputs, LABELS: np.asarray(labels, dtype=np.int64)}
        return self.asset(lambda folder: _save(tensors, folder / VALIDATION))

    def commit(
        self, name: str, version: str, description: str, variants: Sequence[VariantSpec], meta: Metadata
    ) -> None:
        """Write assets and manifest."""
        package = self._ort.ModelPackage()
        try:
            package.set_metadata(name, version, description or None)
            package.set_layout("portable")
            for source in self._sources:
                package.add_shared_asset(str(source))
            package.set_component_inline(COMPONENT, json.dumps({"variants": {}}))
            target = self._scratch / "committed"
            package.commit(str(target), self._ort.ModelPackageWriteMode.DENSE)
            package.close()
            for part in target.iterdir():
                part.rename(self._root / part.name)
            package = self._ort.ModelPackage.open(str(self._root))
            for variant in variants:
                _set_variant(package, variant)
            package.set_additional_metadata_json("manifest", json=json.dumps({"edgeloop": meta.to_json()}))
            package.commit()
        except (RuntimeError, ValueError) as error:
            raise PackageError(f"ONNX Runtime refused the package: {error}") from error
        finally:
            package.close()
        manifest = self._root / "manifest.json"
        # ONNX Runtime indents; without it the manifest, which every update moves, is half the size.
        manifest.write_text(json.dumps(json.loads(manifest.read_bytes()), separators=(",", ":")))
        Manifest.parse(manifest.read_bytes())


def _set_variant(package: Any, variant: VariantSpec) -> None:
    own = {"edgeloop": {"precision": variant.precision, "tensors": list(variant.tensors)}}
    body = {"ep": variant.ep, "device": variant.device, "variant_directory": variant.directory}
    package.set_variant(COMPONENT, variant.name, json.dumps({**body, "additional_metadata": own}))
    ort: dict[str, Any] = {"model_file": Path(variant.model_file).name}
    if variant.weights_uri is not None:
        ort["session_options"] = {WEIGHTS_OPTION: variant.weights_uri}
    if variant.provider_options:
        ort["provider_options"] = dict(variant.provider_options)
    package.set_variant_executor_info_inline(COMPONENT, variant.name, "ort", json.dumps(ort))


def _save(tensors: Tensors, path: Path) -> None:
    arrays = {name: packed(values) if values.dtype.kind in "OSU" else values for name, values in tensors.items()}
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, path)


def _save_outputs(outputs: Mapping[str, Tensors], folder: Path) -> None:
    for precision, tensors in outputs.items():
        _save(tensors, folder / golden_outputs_file(precision))
