"""Manifest, writing, revising and opening, on real folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeloop.insights import Window
from edgeloop.package import (
    Draft,
    DraftVariant,
    HeadSpec,
    Index,
    Manifest,
    OutputSpec,
    Package,
    PackageError,
    TensorSpec,
    asset_folder,
    audit,
    required_paths,
    revise_head,
    write_package,
)
from tests.doubles.packages import CLASSES, FEATURES, answers, make_model, make_package


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("base") / "digits", precisions=("fp32", "int8"))


def files_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# ── manifest ─────────────────────────────────────────────────────────────────────────────────────


def own(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["additional_metadata"]["edgeloop"]
    return found


def variant(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["components"]["model"]["variants"]["cpu-fp32"]
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(schema_version="2.0"), "schema_version is '2.0'"),
        (lambda m: m.pop("package_name"), "package_name"),
        (lambda m: m.update(package_name="a/b"), "package_name"),
        (lambda m: m.update(package_version="x" * 65), "package_version"),
        (lambda m: m.update(layout="scattered"), "layout has to be portable"),
        (lambda m: m.update(surprise=1), "'surprise'"),
        (lambda m: m.pop("additional_metadata"), "additional_metadata is missing"),
        (lambda m: m.update(additional_metadata={}), "edgeloop is missing"),
        (lambda m: m["components"].update(more={}), "one component"),
        (lambda m: m["components"]["model"].update(variants={}), "0 variants"),
        (lambda m: variant(m).update(surprise=1), "unknown field 'surprise'"),
        (lambda m: variant(m).pop("ep"), "'ep'"),
        (lambda m: variant(m).update(variant_directory="cpu-INT8"), "share a variant_directory"),
        (lambda m: variant(m)["additional_metadata"]["edgeloop"].update(tensors="w"), "tensors have to be a list"),
        (lambda m: variant(m)["additional_metadata"]["edgeloop"].update(tensors=["../w"]), "leaves the package"),
        (lambda m: variant(m)["executor_info"]["ort"].update(session_options=None), "wrong kind"),
        (lambda m: own(m).update(format=2), "Update edgeloop"),
        (lambda m: own(m).pop("task"), "'task'"),
        (lambda m: own(m).update(labels="abc"), "labels has to be a list"),
        (lambda m: own(m).update(inputs={"name": "x"}), "inputs has to be a list"),
        (lambda m: own(m)["inputs"][0].update(shape=[-2]), "-1 for what may vary"),
        (lambda m: own(m)["inputs"][0].update(shape=[True]), "-1 for what may vary"),
        (lambda m: own(m)["inputs"][0].update(shape=[1] * 17), "at most 16"),
        (lambda m: own(m)["outputs"][0].update(role="oracle"), "role 'oracle'"),
        (lambda m: own(m).update(golden={"inputs": own(m)["golden"]["inputs"]}), "golden needs inputs and outputs"),
        (lambda m: own(m).update(golden=[]), "wrong kind"),
        (lambda m: own(m).update(profile={"bins": "x"}), "profile bins and reference"),
        (lambda m: own(m).update(metrics="ab"), "metrics is missing, or no object"),
        (lambda m: own(m).update(lineage=[["a", 1]]), "lineage is missing, or no object"),
        (lambda m: own(m)["head"].update(activation="relu"), "activation"),
        (lambda m: own(m)["head"].update(transposed=1), "activation"),
        (lambda m: own(m)["head"].update(bias="nothing"), "'nothing.bin' is no tensor of variant"),
    ],
)
def test_manifest_errors(base: Package, change: Callable[[dict[str, Any]], None], said: str) -> None:
    manifest = json.loads(json.dumps(base.manifest.raw))
    change(manifest)
    with pytest.raises(PackageError) as caught:
        Manifest.parse(json.dumps(manifest).encode())
    assert said in str(caught.value)
    assert "manifest.json" in str(caught.value) or "leaves the package" in str(caught.value)


def test_metadata_round_trip_keeps_what_it_does_not_know(base: Package) -> None:
    manifest = json.loads(json.dumps(base.manifest.raw))
    own(manifest)["later"] = {"a": [1]}
    meta = Manifest.parse(json.dumps(manifest).encode()).meta
    assert meta.extra == {"later": {"a": [1]}}
    assert meta.to_json() == own(manifest)
    assert meta.output("features") == "features" and meta.output("logits") is None


def test_required_paths(base: Package) -> None:
    every = {entry.path for entry in required_paths(base.manifest, base.index)}
    one = {entry.path for entry in required_paths(base.manifest, base.index, ["cpu-int8"])}
    assert base.meta.validation is not None
    validation = asset_folder(base.meta.validation)
    assert any(path.startswith(validation) for path in base.index.by_path)
    assert not any(path.startswith(validation) for path in every | one)
    assert every - one == {"cpu-fp32/model.onnx"}
    assert {"manifest.json", "cpu-int8/model.onnx"} < one
    assert {Path(path).name for path in one} > {"head.weight.bin", "body.weight.bin", "bins.safetensors"}
    with pytest.raises(PackageError, match="no variant 'tpu'"):
        required_paths(base.manifest, base.index, ["tpu"])
    for gone in sorted(one):
        less = Index.of(
            e for e in base.index.entries if e.path != gone and not e.path.endswith("outputs-fp32.safetensors")
        )
        if "outputs-" not in gone:
            with pytest.raises(PackageError, match="the index lacks"):
                required_paths(base.manifest, less, ["cpu-int8"])


# ── writing ──────────────────────────────────────────────────────────────────────────────────────


def test_deterministic_and_audited(base: Package, tmp_path: Path) -> None:
    again = make_package(tmp_path / "again", precisions=("fp32", "int8"))
    assert files_of(again.root) == files_of(base.root)
    assert again.digest == base.digest == Package.open(again.root).digest
    assert again.root == tmp_path / "again"
    audit(again.root, index=base.index)


def test_equal_tensors_of_two_variants_are_one_file(base: Package) -> None:
    assert len([path for path in base.index.by_path if path.endswith("body.weight.bin")]) == 1


def test_manifest_has_no_spaces_to_pay_for(base: Package) -> None:
    data = (base.root / "manifest.json").read_bytes()
    assert len(data) == len(json.dumps(json.loads(data), separators=(",", ":")))


def test_existing_destination_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(PackageError, match="exists"):
        make_package(tmp_path / "there")
    assert not any((tmp_path / "there").iterdir())


def draft(*variants: DraftVariant, **options: Any) -> Draft:
    x = np.zeros((2, 64), np.float32)
    outputs = [OutputSpec("probabilities", "FP32", (-1, CLASSES), "probabilities")]
    references = {v.precision: {"probabilities": np.zeros((2, CLASSES), np.float32)} for v in variants}
    common: dict[str, Any] = {
        "labels": ["a"],
        "inputs": [TensorSpec("x", "FP32", (-1, 64))],
        "outputs": outputs,
        "golden_inputs": {"x": x},
        "golden_outputs": references,
    }
    return Draft("n", "1", variants, **(common | options))


def double_head() -> onnx.ModelProto:
    model = make_model()
    for tensor in model.graph.initializer:
        if tensor.name == "head.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(CLASSES), "head.bias"))
    return model


HEAD = HeadSpec("head.weight", "head.bias", "softmax", transposed=False)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (draft(), "one or more variants"),
        (draft(DraftVariant("a", "fp32", make_model()), DraftVariant("A", "fp32", make_model())), "names of their own"),
        (draft(DraftVariant("../a", "fp32", make_model())), "leaves the package"),
        (draft(DraftVariant("a", "fp32", make_model()), golden_outputs={}), "golden outputs of fp32"),
        (
            draft(DraftVariant("a", "fp32", make_model()), head=replace(HEAD, bias="b")),
            "lacks the head's initializer b",
        ),
        (draft(DraftVariant("a", "fp32", double_head()), head=HEAD), "head.bias of variant a is not float32"),
        (
            draft(
                DraftVariant("a", "fp32", make_model()), DraftVariant("b", "fp32", make_model(head_seed=3)), head=HEAD
            ),
            "differs between variants",
        ),
    ],
)
def test_a_failure_leaves_nothing(tmp_path: Path, made: Draft, said: str) -> None:
    with pytest.raises(PackageError, match=said):
        write_package(tmp_path / "new", made)
    assert not any(tmp_path.iterdir())


def test_tensors_whose_names_become_one(tmp_path: Path) -> None:
    """Cut short, freed of strange characters, or the same but for case: each keeps its own bytes."""
    names = ["a/b", "a_b", "a:b", "A_b", "é", "x" * 200 + "1", "x" * 200 + "2", "x" * 200 + "3"]
    arrays = {name: np.full(512, i, np.float32) for i, name in enumerate(names)}
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [512])
    nodes = [helper.make_node("Sum", names, ["y"])]
    graph = helper.make_graph(nodes, "g", [], [out], [numpy_helper.from_array(v, k) for k, v in arrays.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    package = write_package(tmp_path / "p", draft(DraftVariant("a", "fp32", model), DraftVariant("b", "fp32", model)))
    audit(package.root)
    found = onnx.load(package.root / "a" / "model.onnx", load_external_data=False)
    uri = package.variants["a"].weights_uri
    assert uri is not None
    for tensor in found.graph.initializer:
        (file,) = (e.value for e in tensor.external_data if e.key == "location")
        assert np.array_equal(np.fromfile(package.asset(uri) / file, np.float32), arrays[tensor.name]), tensor.name


# ── revising ─────────────────────────────────────────────────────────────────────────────────────


def revised(base: Package, dest: Path, **options: Any) -> Package:
    weight, bias = base.head_arrays()
    x = base.golden().inputs["x"]
    found = answers(make_model(0, head_seed=9), x)
    given: dict[str, Any] = {
        "weight": weight[::-1] * 2,
        "bias": bias + 1,
        "golden_outputs": {"fp32": found, "int8": found},
        "profile": base.profile(),
        "metrics": {"cpu-fp32": {"accuracy": 0.5}},
        "lineage": {"base": base.digest},
        "version": "2",
    }
    return revise_head(base, dest, **(given | options))


def by_content(package: Package) -> dict[str, str]:
    """File (without its asset, whose name changes with any of its files) → SHA-256."""
    return {Path(e.path).name if "assets" in e.path else e.path: e.sha256 for e in package.index.entries}


def test_revise_changes_only_what_it_must(base: Package, tmp_path: Path) -> None:
    new = revised(base, tmp_path / "new")
    old, now = by_content(base), by_content(new)
    assert set(old) == set(now)
    changed = {name for name in old if old[name] != now[name]}
    heads = {"head.weight.bin", "head.bias.bin"}
    assert changed == heads | {"outputs-fp32.safetensors", "outputs-int8.safetensors", "manifest.json"}
    for key in ("inputs", "outputs"):
        assert (new.meta.golden[key] == base.meta.golden[key]) == (key == "inputs")
    assert new.meta.validation == base.meta.validation and new.version == "2" and new.name == base.name
    weight, bias = base.head_arrays()
    assert np.array_equal(new.head_arrays()[0], weight[::-1] * 2) and np.array_equal(new.head_arrays()[1], bias + 1)
    audit(new.root, index=new.index)


def test_revise_with_another_profile_keeps_the_bins(base: Package, tmp_path: Path) -> None:
    profile = base.profile()
    assert profile is not None and base.meta.profile is not None
    twice = Window.zero(profile.schema)
    for _ in range(2):
        twice = twice.merge(profile.reference)
    new = revised(base, tmp_path / "new", profile=profile.with_reference(twice))
    assert new.meta.profile is not None
    assert new.meta.profile["bins"] == base.meta.profile["bins"]
    assert new.meta.profile["reference"] != base.meta.profile["reference"]


def test_the_base_is_not_touched(base: Package, tmp_path: Path) -> None:
    before = files_of(base.root)
    revised(base, tmp_path / "new")
    assert files_of(base.root) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": np.zeros((CLASSES, FEATURES + 1))}, "the package's is"),
        ({"bias": np.zeros(CLASSES - 1)}, "the package's is"),
        ({"bias": np.full(CLASSES, np.nan)}, "not finite"),
    ],
)
def test_revise_refuses(base: Package, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(PackageError, match=said):
        revised(base, tmp_path / "new", **options)
    assert not any(tmp_path.iterdir())


# ── opening ──────────────────────────────────────────────────────────────────────────────────────


def test_a_devices_part_opens_with_the_index(base: Package, tmp_path: Path) -> None:
    for entry in required_paths(base.manifest, base.index, ["cpu-int8"]):
        (tmp_path / entry.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base.root / entry.path, tmp_path / entry.path)
    package = Package.open(tmp_path, index=base.index)
    assert package.digest == base.digest
    assert package.validation() is None and package.profile() is not None
    assert set(package.golden().inputs) == {"x"}
    assert package.head_arrays()[0].shape == (CLASSES, FEATURES)
    audit(tmp_path, index=base.index, variants=("cpu-int8",))
    with pytest.raises(PackageError, match=r"cpu-fp32/model\.onnx is missing"):
        audit(tmp_path, index=base.index)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"manifest\.json cannot be read"):
        Package.open(tmp_path)
    package = make_package(tmp_path / "p", validation=False)
    assert package.validation() is None
    next(package.root.rglob("head.bias.bin")).write_bytes(b"\0" * 12)
    with pytest.raises(PackageError, match="do not belong to one another"):
        package.head_arrays()
    next(package.root.rglob("inputs.safetensors")).write_bytes(b"\xff" * 40)
    with pytest.raises(PackageError, match=r"inputs\.safetensors cannot be read"):
        package.golden()
