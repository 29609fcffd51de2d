"""What is different between two packages, and the bytes of the update: those that an agent would fetch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from edgeloop.package import Package, required_paths
from model_export import build, cli
from model_export.diff import compare
from model_export.diff.graphs import compared
from tests.unit.export.models import rows, two_layers


def made(folder: Path, name: str, head: float = 1.0, **more: Any) -> Path:
    """A package; its head's weights are multiplied."""
    model = two_layers()
    weights = next(t for t in model.graph.initializer if t.name == "w2")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(head), "w2"))
    settings: dict[str, Any] = {"name": "m", "precision": ("fp32",), "reproducible": True} | more
    build(model, folder / name, folder / "data.npz", **settings)
    return folder / name


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("diff")
    np.savez(folder / "data.npz", x=rows(120), label=np.arange(120) % 3)
    return made(folder, "old"), made(folder, "new", 1.5, version="2.0.0", max_loss=0.5)


def test_a_package_is_the_same_as_itself(packages: tuple[Path, Path]) -> None:
    found = compare(packages[0], packages[0])
    assert found.same and found.update.bytes == found.update.files == 0 and found.update.of_bytes > 0
    assert found.graphs["cpu-fp32"].is_empty and found.outputs["cpu-fp32"].agreement == 1.0
    assert not found.metrics and not found.recipe


def test_another_head_is_two_tensors_and_what_follows_from_it(packages: tuple[Path, Path]) -> None:
    found = compare(*packages)
    change = found.graphs["cpu-fp32"]
    assert [tensor.name for tensor in change.tensors_changed] == ["head.weight"]
    assert change.tensors_changed[0].change == pytest.approx(0.5) and change.tensors_same >= 2
    assert not change.operators and not change.added and not change.removed
    outputs = found.outputs["cpu-fp32"]
    assert 0 < outputs.difference < 1 and 0.5 < outputs.agreement <= 1.0
    assert found.recipe == {"max_loss": (0.03, 0.5)}

    old, new = Package.open(packages[0]), Package.open(packages[1])
    here = {entry.sha256 for entry in old.index.entries}
    lacking = [entry for entry in required_paths(new.manifest, new.index) if entry.sha256 not in here]
    assert found.update.bytes == sum(entry.size for entry in lacking) == found.updates["cpu-fp32"].bytes
    assert not any(
        path.endswith("validation.safetensors") or path.endswith("model.onnx") for path in found.update.paths
    )
    assert found._repr_html_().count("<tr>") == 3


def test_the_command_says_it_in_words_and_as_json(packages: tuple[Path, Path]) -> None:
    run = CliRunner().invoke(cli.app, ["diff", *map(str, packages), "--no-run"])
    assert run.exit_code == 0, run.output
    assert "head.weight by 50.00%" in run.stdout and "outputs were not compared" in run.stdout
    run = CliRunner().invoke(cli.app, ["diff", *map(str, packages), "--json"])
    told = json.loads(run.stdout)
    assert told["same"] is False and told["outputs"]["cpu-fp32"]["rows"] == 81


def test_graphs_differ_by_nodes_operators_and_opsets() -> None:
    old, new = two_layers(), two_layers()
    for model in (old, new):
        for i, node in enumerate(model.graph.node):
            node.name = f"n{i}"
    new.graph.node[2].op_type = "Tanh"
    new.graph.node.append(helper.make_node("Identity", ["h"], ["again"], name="extra"))
    new.opset_import[0].version = 18
    found = compared(old, new)
    assert found.operators == {"Identity": 1, "Relu": -1, "Tanh": 1}
    assert found.added == ("extra (Identity)",) and found.changed == ("n2 (Tanh)",) and found.removed == ()
    assert found.opsets == {"ai.onnx": (17, 18)} and compared(new, old).removed == ("extra (Identity)",)
