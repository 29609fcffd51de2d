"""What a retrained release may change: its head. On real folders, and once in the child of the audit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeloop.package import Base, Index, Package, PackageError, asset_folder, audit, audit_in_child
from edgeloop.package.difference import differences
from edgeloop.package.manifest import Manifest
from tests.doubles.packages import make_package, new_head


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Package]:
    """A release, and what the hub makes of it."""
    folder = tmp_path_factory.mktemp("difference")
    first = make_package(folder / "1", precisions=("fp32", "int8"), ep="CUDAExecutionProvider")
    return first, new_head(first, folder / "2", "2")


def base_of(package: Package) -> Base:
    return Base(package.index, package.manifest)


def own(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["additional_metadata"]["edgeloop"]
    return found


def executor(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["components"]["model"]["variants"]["cuda-fp32"]["executor_info"]["ort"]
    return found


def test_another_head_is_no_difference(packages: tuple[Package, Package]) -> None:
    first, second = packages
    audit_in_child(second.root, index=second.index, base=base_of(first))
    assert second.digest != first.digest


def test_the_head_of_a_head_is_held_against_the_first(packages: tuple[Package, Package], tmp_path: Path) -> None:
    first, second = packages
    third = new_head(second, tmp_path / "3", "3")
    audit(third.root, index=third.index, base=base_of(first))


def add_variant(manifest: dict[str, Any]) -> None:
    variants = manifest["components"]["model"]["variants"]
    variants["cuda-fp16"] = {**json.loads(json.dumps(variants["cuda-fp32"])), "variant_directory": "cuda-fp16"}


def drop_variant(manifest: dict[str, Any]) -> None:
    del manifest["components"]["model"]["variants"]["cuda-int8"]


def swap_variants(manifest: dict[str, Any]) -> None:
    variants = manifest["components"]["model"]["variants"]
    manifest["components"]["model"]["variants"] = dict(reversed(variants.items()))


FIELDS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (add_variant, "its variants are"),
    (drop_variant, "its variants are"),
    (swap_variants, "its variants are"),
    (lambda m: m.update(package_name="another"), "manifest.package_name"),
    (lambda m: m.update(description="yours"), "description"),
    (lambda m: own(m)["labels"].reverse(), "labels"),
    (lambda m: own(m).update(task="regression"), "task"),
    (lambda m: own(m)["inputs"][0].update(shape=[-1, 63]), "inputs"),
    (lambda m: own(m)["outputs"][1].update(role="other"), "outputs"),
    (lambda m: own(m).update(features=None), "features"),
    (lambda m: own(m)["head"].update(transposed=True), "head.transposed"),
    (lambda m: own(m).update(anything={"else": 1}), "anything was added"),
    (lambda m: executor(m).update(provider_options={"use_tf32": "1"}), "provider_options was added"),
    (lambda m: own(m)["golden"].update(inputs="sha256:" + "0" * 64), "golden.inputs"),
]


@pytest.mark.parametrize(("change", "said"), FIELDS)
def test_no_other_field_may_change(
    packages: tuple[Package, Package], change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    first, second = packages
    raw = json.loads((second.root / "manifest.json").read_bytes())
    change(raw)
    problems = differences(base_of(first), second.index, Manifest.parse(json.dumps(raw).encode()))
    assert problems, "the change was not seen"
    assert said in problems[0]


def graph_of(root: Path, change: Callable[[onnx.ModelProto], Any]) -> None:
    path = root / "cuda-fp32" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def change_backbone(package: Package) -> None:
    path = package.asset(str(package.variants["cuda-fp32"].weights_uri)) / "body.weight.bin"
    values = np.fromfile(path, "<f4")
    values[7] += 1
    path.write_bytes(values.tobytes())


def longer_head(package: Package) -> None:
    path = package.asset(str(package.variants["cuda-fp32"].weights_uri)) / "head.bias.bin"
    path.write_bytes(path.read_bytes() + b"\0\0\0\0")


def change_graph(package: Package) -> None:
    graph_of(package.root, lambda model: model.graph.node[1].__setattr__("op_type", "Sigmoid"))


def add_file(package: Package) -> None:
    (package.root / "cuda-fp32" / "more.bin").write_bytes(b"more")


def change_golden_inputs(package: Package) -> None:
    path = next(package.asset(package.meta.golden["inputs"]).iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def change_validation(package: Package) -> None:
    assert package.meta.validation is not None
    path = next((package.root / asset_folder(package.meta.validation)).iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_backbone, "body.weight.bin is not the file of its base"),
        (longer_head, "head.bias.bin has 44 bytes"),
        (change_graph, "cuda-fp32/model.onnx is not the file of its base"),
        (add_file, "cuda-fp32/more.bin was added"),
        (change_golden_inputs, "inputs.safetensors is not the file of its base"),
        (change_validation, "validation.safetensors is not the file of its base"),
    ],
)
def test_no_other_file_may_change(
    packages: tuple[Package, Package], tmp_path: Path, change: Callable[[Package], None], said: str
) -> None:
    first, second = packages
    shutil.copytree(second.root, tmp_path / "changed")
    change(Package.open(tmp_path / "changed"))
    index = Index.of_folder(tmp_path / "changed")
    with pytest.raises(PackageError, match=said.replace(".", r"\.")):
        audit(tmp_path / "changed", index=index, base=base_of(first))


def test_another_model_has_a_short_list_of_differences(packages: tuple[Package, Package], tmp_path: Path) -> None:
    other = make_package(
        tmp_path / "other", name="other", seed=3, precisions=("fp32", "int8"), ep="CUDAExecutionProvider"
    )
    with pytest.raises(PackageError, match=r"manifest\.package_name") as caught:
        audit_in_child(other.root, index=other.index, base=base_of(packages[0]))
    assert len(caught.value.problems) <= 11


def test_of_a_release_without_a_head_nothing_may_change(packages: tuple[Package, Package]) -> None:
    first, second = packages
    raw = json.loads((first.root / "manifest.json").read_bytes())
    own(raw)["head"] = None
    headless = Base(first.index, Manifest.parse(json.dumps(raw).encode()))
    assert "no head" in differences(headless, second.index, second.manifest)[0]


def test_a_tensor_that_lies_in_the_heads_file_would_change_with_it(
    packages: tuple[Package, Package], tmp_path: Path
) -> None:
    """A publisher may do that; then the hub's key may not give the model another head."""

    def share(model: onnx.ModelProto) -> None:
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "body.bias")
        bias.ClearField("raw_data")
        bias.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "head.weight.bin"), ("offset", "0"), ("length", "64")):
            entry = bias.external_data.add()
            entry.key, entry.value = key, value

    for name, package in zip(("first", "second"), packages, strict=True):
        shutil.copytree(package.root, tmp_path / name)
        graph_of(tmp_path / name, share)
    first, second = (Package.open(tmp_path / name) for name in ("first", "second"))
    audit(second.root, index=second.index)
    with pytest.raises(PackageError, match=r"body\.bias lies in head\.weight\.bin"):
        audit(second.root, index=second.index, base=base_of(first))
