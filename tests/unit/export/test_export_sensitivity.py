"""Which node int8 harms: the planted one is found, and left in float it harms no more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from model_export import build, cli
from model_export.graphs.canonical import canonical
from model_export.graphs.graph import Array
from model_export.graphs.probe import Probe
from model_export.tuning.blaming import Blame
from model_export.tuning.sensitivity import Sensitivity, node_errors, with_accuracy
from model_export.variants.quantize import ranges_of, to_int8
from model_export.variants.recipes import Int8Options
from tests.unit.export import networks

#: 7 bits of weights: what is seen is the rounding, on processors with and without VNNI.
OPTIONS = Int8Options(reduce_range=True)


def test_the_layer_that_reads_an_outlier_is_blamed_and_heals_when_it_is_left_in_float() -> None:
    rows = {"image": networks.images(96)}
    model = canonical(networks.conv_net(outlier=True), rows)
    second = [node.name for node in model.graph.node if node.op_type == "Conv"][1]
    truth = _classes(model, rows)
    ranges = ranges_of(model, rows, "minmax")

    def accuracy_without(*nodes: str) -> float:
        return float((_classes(to_int8(model, ranges, OPTIONS, nodes), rows) == truth).mean())

    errors = node_errors(model, to_int8(model, ranges, OPTIONS), rows)
    by_name = {found.node: found for found in errors}
    assert by_name[second].op == "Conv" and by_name[second].error > 5 * by_name["conv_0"].error
    blamed = with_accuracy(errors, accuracy_without, 3)
    assert blamed[0].node == second
    assert blamed[0].accuracy_without is not None and blamed[0].accuracy_without > accuracy_without() + 0.1


def test_a_healthy_network_has_small_errors_everywhere() -> None:
    rows = {"image": networks.images(64)}
    model = canonical(networks.conv_net(), rows)
    errors = node_errors(model, to_int8(model, rows, OPTIONS), rows)
    assert {"conv_0", "conv_2"} <= {found.node for found in errors}
    assert all(found.error < 0.1 for found in errors)


def test_a_person_is_told_which_layer_of_a_package_costs_the_accuracy(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=networks.images(200), label=networks.classes(200))
    spoilt = networks.conv_net(outlier=True)
    build(spoilt, tmp_path / "spoilt", tmp_path / "data.npz", precision=("fp32",), int8=OPTIONS, reproducible=True)
    done = CliRunner().invoke(cli.app, ["sensitivity", str(tmp_path / "spoilt"), "--nodes", "2", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    nodes = [Sensitivity(**node) for node in told.pop("nodes")]
    found = Blame(**told, nodes=tuple(nodes))
    assert found.accuracy_fp32 == 1.0 > found.accuracy_int8 + 0.1 and 80 < found.rows < 100
    assert {node.node for node in nodes} == {"conv_0", "conv_2"}
    assert nodes[0].node == "conv_2" and nodes[0].accuracy_without == 1.0
    assert found.told().endswith("conv_2 (Conv) costs most: left in float, it is 100.00%.")


def _classes(model: object, rows: dict[str, Array]) -> Array:
    return np.asarray(Probe(model).run(rows)["probabilities"]).argmax(axis=1)  # type: ignore[arg-type]
