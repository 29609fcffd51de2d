"""Which node int8 harms: the planted one is found, and left in float it harms no more."""

from __future__ import annotations

import numpy as np

from model_export.graphs.canonical import canonical
from model_export.graphs.graph import Array
from model_export.graphs.probe import Probe
from model_export.tuning.sensitivity import node_errors, with_accuracy
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


def _classes(model: object, rows: dict[str, Array]) -> Array:
    return np.asarray(Probe(model).run(rows)["probabilities"]).argmax(axis=1)  # type: ignore[arg-type]
