"""Building a package like another one, from a hub's dataset: the same promises to callers, by the same recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from edgeloop.package import OutputSpec, Package, TensorSpec
from model_export import build, cli
from model_export.data import read_table, representative
from model_export.errors import DataError, InvalidPackageError, UnsupportedModelError
from model_export.variants.likeness import Recipe, check_alike
from model_export.variants.recipes import Int8Options
from tests.doubles import digits
from tests.doubles.sampled import Sampled

RECIPE = Recipe(("int8", "fp32"), Int8Options("s8s8", "percentile"), max_loss=0.2, reproducible=True)


@pytest.fixture(scope="module", name="base")
def base_once(tmp_path_factory: pytest.TempPathFactory) -> Package:
    root = tmp_path_factory.mktemp("base") / "digits"
    digits.build(root, precision=RECIPE.precision, int8=RECIPE.int8, max_loss=RECIPE.max_loss)
    return Package.open(root)


@pytest.fixture(scope="module", name="data")
def dataset(base: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "dataset"
    test = digits.splits().test
    Sampled(test.x, test.y).write(folder, channel="c", base=base, since=None, until=0.0)
    return folder


def test_a_package_names_its_recipe(base: Package) -> None:
    assert Recipe.of(base) == RECIPE


def test_a_package_like_another_one_takes_over_what_its_callers_and_its_fleet_know(
    base: Package, data: Path, tmp_path: Path
) -> None:
    given = {"run": 7, "trainer": {"name": "command"}, "source": "is the tool's to say"}
    report = build(digits.classifier(), tmp_path / "new", data, version="2", like=base.root, lineage=given)
    made = Package.open(tmp_path / "new")
    assert (made.name, made.version, made.meta.labels) == (base.name, "2", base.meta.labels)
    assert (made.meta.inputs, made.meta.outputs) == (base.meta.inputs, base.meta.outputs)
    assert (made.meta.golden["inputs"], made.meta.validation) == (base.meta.golden["inputs"], base.meta.validation)
    assert Recipe.of(made) == RECIPE and list(made.variants) == list(base.variants)
    # The same network: what it is worth on the same validation set is the same, whatever data calibrated it.
    accuracy = "cpu-fp32", "accuracy"
    assert made.meta.metrics[accuracy[0]][accuracy[1]] == base.meta.metrics[accuracy[0]][accuracy[1]]
    lineage = report.lineage
    assert (lineage["parent"], lineage["run"], lineage["trainer"]) == (base.digest, 7, {"name": "command"})
    assert lineage["source"]["kind"] == "sklearn"
    test = digits.splits().test
    assert (lineage["data"]["calibration"], lineage["data"]["validation"]) == (
        len(test.y) * 3 // 4 + 1,
        len(test.y) // 4,
    )


def test_with_like_nothing_else_is_said(base: Package, data: Path, tmp_path: Path) -> None:
    arguments = ["build", "model.onnx", "-o", str(tmp_path / "new"), "--data", str(data), "--like", str(base.root)]
    done = CliRunner().invoke(cli.app, [*arguments, "--max-loss", "0.5"])
    assert done.exit_code == 2 and "--max-loss and --like contradict" in done.output


def test_another_model_is_refused(base: Package) -> None:
    inputs, outputs = list(base.meta.inputs), list(base.meta.outputs)
    check_alike(base, inputs, [spec for spec in outputs if spec.role != "features"])
    with pytest.raises(UnsupportedModelError, match=r"its inputs are .*\[-1, 65\]"):
        check_alike(base, [TensorSpec(inputs[0].name, "FP32", (-1, 65))], outputs)
    renamed = [OutputSpec(f"{spec.name}_2", spec.datatype, spec.shape, spec.role) for spec in outputs]
    with pytest.raises(UnsupportedModelError, match="it lacks the output"):
        check_alike(base, inputs, renamed)


@pytest.mark.parametrize(
    "told",
    [[], {}, {**RECIPE.to_json(), "precision": ["fp8"]}, {**RECIPE.to_json(), "max_loss": "none"}],
    ids=["a list", "nothing", "unknown precision", "no number"],
)
def test_a_recipe_that_cannot_be_followed_is_told(told: Any, base: Package) -> None:
    from dataclasses import replace

    meta = replace(base.meta, extra={"recipe": told})
    other = replace(base, manifest=replace(base.manifest, meta=meta))
    with pytest.raises(InvalidPackageError, match="the recipe of digits cannot be followed"):
        Recipe.of(other)


def test_rows_of_a_larger_weight_stand_for_more() -> None:
    rows = np.arange(100, 600)
    weight = np.zeros(600)
    weight[100:350], weight[350:] = 1.0, 3.0
    found = representative(rows, weight)
    # Kish: (250·1 + 250·3)² / (250·1 + 250·9) = 400 rows, of which 3 in 4 are of the heavier half.
    assert len(found) == 400 and (found >= 350).sum() == 300 and len(np.unique(found[found < 350])) == 100
    assert representative(rows, np.ones(600)) is rows
    with pytest.raises(DataError, match="no weight"):
        representative(rows, np.where(weight == 3.0, np.nan, 1.0))


def test_a_folder_that_is_no_dataset_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a Parquet file"):
        read_table(tmp_path)
    parquet.write_table(pa.table({"x": [1.0], "label": [0]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"z": [1.0], "label": [0]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has other columns"):
        read_table(tmp_path)


def test_of_a_dataset_a_part_is_held_out(base: Package, tmp_path: Path) -> None:
    parquet.write_table(
        pa.table({"input": np.zeros(50), "label": [0, 1] * 25, "holdout": [False] * 50}), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match="all or none are held out"):
        build(_scalar_model(), tmp_path / "new", tmp_path)


def _scalar_model() -> onnx.ModelProto:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Concat", ["input", "input"], ["logits"], axis=1)],
        "two",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
