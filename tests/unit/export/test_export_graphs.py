"""The canonical graph, the head finder and int8, on small graphs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edgeloop.runtime.golden import TOLERANCES
from model_export.errors import UnsupportedModelError
from model_export.graphs import head
from model_export.graphs.canonical import canonical, inputs_of
from model_export.graphs.graph import array_of
from model_export.graphs.measure import softmax
from model_export.graphs.probe import Probe
from model_export.variants import quantize
from model_export.variants.recipes import Int8Options
from tests.unit.export.models import INT64, model, rows, two_layers, weight


def prepared(source: ModelProto) -> tuple[ModelProto, dict[str, Any]]:
    inputs = {"x": rows()}
    return canonical(source, inputs), inputs


def test_matmul_and_add_become_the_head_with_its_input_as_features() -> None:
    graph, inputs = prepared(two_layers())
    found = head.expose(graph, "scores")
    assert found == head.Head("features", 3, 6, False, "softmax")
    weights, bias = array_of(graph.graph, "head.weight"), array_of(graph.graph, "head.bias")
    assert weights is not None and bias is not None and bias.shape == (3,)
    result = Probe(graph).run(inputs)
    np.testing.assert_allclose(softmax(result["features"] @ weights + bias), result["scores"], atol=1e-6)
    np.testing.assert_allclose(result["scores"], Probe(two_layers()).run(inputs)["scores"], atol=1e-6)


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_keeps_its_layout_and_its_factors_are_folded_in(transposed: bool) -> None:
    w = weight(3, 4) if transposed else weight(4, 3)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=int(transposed), alpha=2.0, beta=0.5)
    source = model([node], {"z": ["N", 3]}, {"w": w, "b": weight(3)})
    graph, inputs = prepared(source)
    found = head.expose(graph, "z")
    assert isinstance(found, head.Head) and found.transposed is transposed and found.activation is None
    result, was = Probe(graph).run(inputs), Probe(source).run(inputs)
    np.testing.assert_allclose(result["z"], was["z"], atol=1e-5)
    np.testing.assert_array_equal(result["features"], inputs["x"])
    stored = array_of(graph.graph, "head.weight")
    assert stored is not None and stored.shape == w.shape
    np.testing.assert_allclose(stored, 2 * w, rtol=1e-6)


def test_a_layer_without_bias_gets_one_of_zeros() -> None:
    source = model([helper.make_node("MatMul", ["x", "w"], ["z"])], {"z": ["N", 3]}, {"w": weight(4, 3)})
    graph, _ = prepared(source)
    assert isinstance(head.expose(graph, "z"), head.Head)
    bias = array_of(graph.graph, "head.bias")
    assert bias is not None and bias.tolist() == [0, 0, 0]


def test_a_head_that_is_already_called_so_keeps_working() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "head.weight", "head.bias"], ["features"]),
        helper.make_node("Relu", ["features"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "b"], ["z"]),
    ]
    tensors = {"head.weight": weight(4, 5), "head.bias": weight(5), "w": weight(5, 3), "b": weight(3)}
    source = model(nodes, {"z": ["N", 3]}, tensors)
    graph, inputs = prepared(source)
    found = head.expose(graph, "z")
    assert isinstance(found, head.Head) and found.width == 5
    np.testing.assert_allclose(Probe(graph).run(inputs)["z"], Probe(source).run(inputs)["z"], atol=1e-5)


def test_features_that_are_already_an_output_keep_their_name() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "v"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "w"], ["logits"]),
    ]
    source = model(nodes, {"logits": ["N", 3], "embedding": ["N", 5]}, {"v": weight(4, 5), "w": weight(5, 3)})
    graph, _ = prepared(source)
    found = head.expose(graph, "logits")
    assert isinstance(found, head.Head) and found.features == "embedding"


def test_no_linear_layer_before_the_scores_is_said_and_changes_nothing() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["z"]), helper.make_node("Sigmoid", ["z"], ["p"])]
    graph, _ = prepared(model(nodes, {"p": ["N", 3]}, {"w": weight(4, 3)}))
    before = graph.SerializeToString()
    assert head.expose(graph, "p") == "Sigmoid computes the scores, not a linear layer with constant weights"
    assert graph.SerializeToString() == before


def test_a_fixed_batch_of_one_becomes_free() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Gemm", ["r", "w"], ["z"]),
    ]
    tensors = {"shape": np.array([1, 4]), "w": weight(4, 3)}
    graph, inputs = prepared(model(nodes, {"z": [1, 3]}, tensors, batch=1))
    assert [d.dim_param for d in graph.graph.input[0].type.tensor_type.shape.dim][:1] == ["N"]
    assert Probe(graph).run(inputs)["z"].shape == (40, 3)


def test_a_graph_that_mixes_the_rows_of_a_batch_is_refused() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["c"]),
        helper.make_node("Gemm", ["c", "w"], ["z"]),
    ]
    with pytest.raises(UnsupportedModelError, match="row by row"):
        prepared(model(nodes, {"z": ["N", 3]}, {"w": weight(4, 3)}))


def test_a_custom_operator_is_refused_by_name() -> None:
    source = model([helper.make_node("Magic", ["x"], ["z"], domain="acme")], {"z": ["N", 3]}, {}, domains=("acme",))
    with pytest.raises(UnsupportedModelError, match=r"acme\.Magic"):
        prepared(source)


def test_an_input_may_be_text_and_has_a_batch() -> None:
    source = two_layers()
    source.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    assert inputs_of(source)[0].dtype == np.dtype(object)
    source.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UnsupportedModelError, match="no tensor of numbers or texts"):
        inputs_of(source)


def test_an_old_opset_is_brought_up_to_date() -> None:
    source = model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"])],
        {"z": ["N", 3]},
        {"w": weight(4, 3), "b": weight(3)},
        opset=9,
    )
    graph, inputs = prepared(source)
    assert graph.opset_import[0].version >= 13
    np.testing.assert_allclose(Probe(graph).run(inputs)["z"], Probe(source).run(inputs)["z"], atol=1e-6)


def test_names_that_exporters_number_are_replaced_and_unsafe_ones_too() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "onnx::MatMul_37", "/enc/bias"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "W", "w"], ["z"]),
    ]
    tensors = {"onnx::MatMul_37": weight(4, 5), "/enc/bias": weight(5), "W": weight(5, 3), "w": weight(3)}
    graph, _ = prepared(model(nodes, {"z": ["N", 3]}, tensors))
    names = [tensor.name for tensor in graph.graph.initializer]
    assert "gemm_0.weight" in names and "gemm_0.bias" in names
    assert len({name.lower() for name in names}) == len(names)


def test_int8_leaves_the_head_in_float_and_its_features_fit_it() -> None:
    graph, inputs = prepared(two_layers())
    head.expose(graph, "scores")
    assert quantize.quantizable(graph)
    int8 = quantize.to_int8(graph, inputs, Int8Options())
    weights, bias = array_of(int8.graph, "head.weight"), array_of(int8.graph, "head.bias")
    assert weights is not None and bias is not None and weights.dtype == np.float32
    result = Probe(int8).run(inputs)
    np.testing.assert_allclose(softmax(result["features"] @ weights + bias), result["scores"], atol=1e-6)
    # What golden cases allow: processors without VNNI saturate, and were seen to differ by 0.051.
    allowed = TOLERANCES["int8"].absolute
    np.testing.assert_allclose(result["scores"], Probe(graph).run(inputs)["scores"], atol=allowed)
    stored = array_of(int8.graph, "w1_quantized")
    assert stored is not None and stored.dtype == np.int8


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8"])
@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_every_int8_option_gives_a_model_that_runs_and_is_repeatable(scheme: Any, calibration: Any) -> None:
    graph, inputs = prepared(two_layers())
    head.expose(graph, "scores")
    options = Int8Options(scheme, calibration, reduce_range=True)
    first, second = (quantize.to_int8(graph, inputs, options) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert Probe(first).run(inputs)["scores"].shape == (40, 3)


def test_a_single_layer_has_nothing_to_quantize() -> None:
    graph, _ = prepared(model([helper.make_node("Gemm", ["x", "w"], ["z"])], {"z": ["N", 3]}, {"w": weight(4, 3)}))
    head.expose(graph, "z")
    assert not quantize.quantizable(graph)


def test_an_integer_output_is_declared_as_it_is() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["z"]),
        helper.make_node("ArgMax", ["z"], ["label"], axis=1, keepdims=0),
    ]
    source = model(nodes, {"z": ["N", 3], "label": ["N"]}, {"w": weight(4, 3)}, kinds={"label": INT64})
    graph, _ = prepared(source)
    assert [o.type.tensor_type.elem_type for o in graph.graph.output] == [TensorProto.FLOAT, INT64]
