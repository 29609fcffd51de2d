"""Recipes of variants: both ways through JSON, what a target refuses, and that every precision can be made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from edgeloop.package.provider_options import check_provider_options
from edgeloop.runtime import ModelSession, check_golden
from model_export.data import Table
from model_export.errors import QuantizationError, RequestError, UnsupportedModelError
from model_export.graphs.graph import all_nodes
from model_export.graphs.inferring import inferred
from model_export.graphs.probe import Probe
from model_export.prepare import Prepared, prepare
from model_export.sources import open_source
from model_export.tuning.bench import Bench
from model_export.variants.likeness import Recipe
from model_export.variants.made import Rules, default_recipe, make_variants, measured
from model_export.variants.maker import Maker
from model_export.variants.recipes import Int4Options, Int8Options, VariantRecipe
from model_export.variants.targets import TARGETS
from tests.unit.export import networks

PLAIN = VariantRecipe("fp32")
RECIPES = [
    PLAIN,
    VariantRecipe("fp16", "cuda", fused=True),
    VariantRecipe("bf16", "tensorrt"),
    VariantRecipe("int8", int8=Int8Options("s8s8", "entropy", per_channel=False), excluded=("conv_0", "a/b")),
    VariantRecipe("int8", int8=Int8Options(dynamic=True), fused=True),
    VariantRecipe("int8", int8=Int8Options("u8u8", per_channel=False, dynamic=True, embeddings=True)),
    VariantRecipe("int4", int4=Int4Options(64, 0, symmetric=False), input_scale=0.5),
]


def _prepared(model: Any, name: str, rows: Any) -> Prepared:
    source = open_source(model, None, trust_source=False)
    return prepare(source, Table({name: rows}, networks.classes(len(rows)), "rows", "0" * 64), labels=None, given={})


@pytest.fixture(scope="module", name="transformer")
def transformer_once() -> Maker:
    rows = networks.sentences(96)
    return Maker(_prepared(networks.transformer(), "input_ids", rows), {"input_ids": rows[:32]})


@pytest.fixture(scope="module", name="images")
def images_once() -> Maker:
    rows = networks.images(96)
    return Maker(_prepared(networks.conv_net(), "image", rows), {"image": rows[:32]})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_comes_back_from_json(recipe: VariantRecipe) -> None:
    assert VariantRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    whole = Recipe(variants=(recipe,), targets=("cpu", "cuda"))
    assert json.loads(json.dumps(whole.to_json()))["variants"] == [recipe.to_json()]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"precision": "fp8"},
        {"precision": "int8"},
        {"precision": "fp32", "target": "abacus"},
        {"precision": "fp32", "excluded": ["../../etc"] * 1 + ["a b;c"]},
        {"precision": "fp32", "input_scale": float("nan")},
        {"precision": "int4", "int4": {"block": 17}},
        {"precision": "int8", "int8": {"scheme": "u4"}},
    ],
    ids=str,
)
def test_a_recipe_of_somebody_else_is_read_strictly(told: Any) -> None:
    with pytest.raises((ValueError, KeyError)):
        VariantRecipe.from_json(told)


@pytest.mark.parametrize(
    ("precision", "target", "options"),
    [
        ("bf16", "cpu", {}),
        ("fp32", "qnn", {}),
        ("int8", "tensorrt", {"int8": Int8Options("u8s8")}),
        ("int8", "openvino", {"int8": Int8Options(dynamic=True)}),
        ("fp16", "coreml", {"fused": True}),
        ("fp32", "cpu", {"input_scale": 2.0}),
        ("int8", "cpu", {"int8": Int8Options(embeddings=True)}),
    ],
)
def test_what_a_target_does_not_compute_is_refused(precision: Any, target: str, options: Any) -> None:
    with pytest.raises(RequestError):
        VariantRecipe(precision, target, **options)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_every_target_has_a_default_and_sets_only_what_a_package_may_set(target: Any) -> None:
    recipe = default_recipe(target, target.default)
    assert recipe.name == f"{target.name}-{target.default}"
    for precision in target.computes:
        options = target.provider_options(precision)
        assert check_provider_options("v", target.ep, options) == options


@pytest.mark.parametrize(
    ("recipe", "operator", "agreeing"),
    [
        (VariantRecipe("fp32", fused=True), "Attention", 1.0),
        (VariantRecipe("fp16"), "Cast", 0.95),
        (VariantRecipe("int8", int8=Int8Options(dynamic=True)), "DynamicQuantizeLinear", 0.5),
        (VariantRecipe("int8", int8=Int8Options(reduce_range=True)), "QuantizeLinear", 0.6),
        (VariantRecipe("int4", int4=Int4Options(16)), "MatMulNBits", 0.6),
        (VariantRecipe("fp16", fused=True), "Attention", 0.95),
        (VariantRecipe("int8", int8=Int8Options(dynamic=True, reduce_range=True), fused=True), "QAttention", 0.6),
        (VariantRecipe("int8", int8=Int8Options(reduce_range=True), fused=True), "QuantizeLinear", 0.6),
    ],
    ids=["fused", "fp16", "dynamic", "static", "int4", "fused fp16", "fused dynamic", "fused static"],
)
def test_a_transformer_in_every_precision(
    recipe: VariantRecipe, operator: str, agreeing: float, transformer: Maker, tmp_path: Path
) -> None:
    graph = transformer.graph(recipe)
    assert operator in {node.op_type for node in all_nodes(graph.graph)}
    rows = transformer.prepared.rows
    scores = transformer.prepared.scores
    plain, found = (Probe(model).run(rows)[scores] for model in (transformer.prepared.model, graph))
    # int8 overflows on x86 without VNNI: that a variant runs and means the same is what holds everywhere.
    assert (found.argmax(axis=1) == plain.argmax(axis=1)).mean() >= agreeing
    assert transformer.graph(recipe).SerializeToString(deterministic=True) == graph.SerializeToString(
        deterministic=True
    )
    # A package takes no variant without its head.
    cases, validation = transformer.prepared.rows, np.arange(len(rows["input_ids"]))
    base, variant = (measured(transformer, r, *transformer.prepared.part(validation)) for r in (PLAIN, recipe))
    package = Bench(transformer.prepared, cases).package(tmp_path / "package", {"plain": base, "other": variant})
    assert {"head.weight", "head.bias"} <= {Path(entry.path).stem for entry in package.index.entries}


@pytest.mark.parametrize("fused", [False, True])
def test_what_a_fused_graph_uses_is_imported_and_its_nodes_have_names(fused: bool, transformer: Maker) -> None:
    dynamic = VariantRecipe("int8", int8=Int8Options(dynamic=True), fused=fused)
    for recipe in (VariantRecipe("fp32", fused=fused), dynamic):
        model = transformer.graph(recipe)
        domains = {node.domain for node in all_nodes(model.graph)}
        assert ("com.microsoft" in domains) == fused
        assert domains == {opset.domain for opset in model.opset_import}
        assert all(node.name for node in transformer.float_graph(fused, 1.0).graph.node)


@pytest.mark.parametrize("fused", [False, True])
def test_types_are_known_behind_operators_that_onnx_does_not_know(fused: bool, transformer: Maker) -> None:
    model = transformer.float_graph(fused, 1.0)
    graph = inferred(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    made = {name: node.op_type for node in model.graph.node for name in node.output if name}
    assert all(types[name] for name in made)
    floats = ("MatMul", "Attention", "BiasGelu")
    assert {types[name] for name, op in made.items() if op in floats} == {TensorProto.FLOAT}


@pytest.mark.parametrize("embeddings", [False, True])
def test_embeddings_become_int8_where_they_are_asked_for(embeddings: bool, transformer: Maker) -> None:
    options = Int8Options("u8u8", per_channel=False, dynamic=True, embeddings=embeddings)
    graph = transformer.graph(VariantRecipe("int8", int8=options)).graph
    tables = [tensor for tensor in graph.initializer if list(tensor.dims) == [networks.VOCABULARY, networks.WIDTH]]
    assert [tensor.data_type for tensor in tables] == [TensorProto.UINT8 if embeddings else TensorProto.FLOAT]


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8"])
def test_int8_for_any_cpu_is_what_the_graph_says_on_this_one(scheme: Any, images: Maker) -> None:
    recipe = default_recipe(TARGETS["cpu"], "int8", Int8Options(scheme))
    assert recipe.int8 is not None and recipe.int8.reduce_range and "7 bits" in recipe.describe()
    graph, rows, scores = images.graph(recipe), images.prepared.rows, images.prepared.scores
    here, said = (Probe(graph, exact=exact).run(rows)[scores] for exact in (False, True))
    # With weights of 8 bits a sum of 16 bits overflows on x86 without VNNI; other kernels differ by roundings alone.
    np.testing.assert_allclose(here, said, atol=0.02)


@pytest.mark.parametrize(
    ("target", "given", "narrow"),
    [
        ("cpu", Int8Options("u8u8"), False),
        ("cpu", Int8Options("u8s8", reduce_range=False), False),
        ("cpu-vnni", None, False),
        ("cpu-vnni", Int8Options(reduce_range=True), False),
        ("cpu-arm64", None, False),
        ("openvino", None, False),
        ("cpu", None, True),
    ],
)
def test_weights_have_7_bits_where_sums_may_have_16(target: str, given: Any, narrow: bool) -> None:
    recipe = default_recipe(TARGETS[target], "int8", given)
    assert recipe.int8 is not None and recipe.int8.reduce_range is narrow


def test_a_conv_net_takes_smaller_images_and_no_int4(images: Maker) -> None:
    small = images.graph(VariantRecipe("fp32", input_scale=0.75))
    assert small.graph.node[0].op_type == "Resize"
    assert Probe(small).run(images.prepared.rows)["probabilities"].shape == (96, networks.CLASSES)
    with pytest.raises(UnsupportedModelError, match="at least 8 wide"):
        images.graph(VariantRecipe("fp32", input_scale=0.5))
    with pytest.raises(QuantizationError, match="stored in 4 bits"):
        images.graph(VariantRecipe("int4", int4=Int4Options()))
    with pytest.raises(UnsupportedModelError, match="could be fused"):
        images.graph(VariantRecipe("fp32", fused=True))


def test_variants_for_other_targets_are_made_and_said_to_be_unmeasured(images: Maker) -> None:
    prepared = images.prepared
    targets = [TARGETS[name] for name in ("tensorrt", "qnn", "coreml")]
    recipes = (*(default_recipe(target, target.default) for target in targets), VariantRecipe("fp32"))
    made = make_variants(prepared, np.arange(32), np.arange(32, 96), Rules(recipes, max_loss=1.0))
    assert [v.name for v in made.variants] == ["tensorrt-fp16", "qnn-int8", "coreml-fp16", "cpu-fp32"]
    assert [v.metrics.latency_ms is None for v in made.variants] == [True, True, True, False]
    assert any("tensorrt-fp16, qnn-int8, coreml-fp16 is not measured" in note for note in made.notes)
    qnn = made.variants[1].model.graph
    assert [dim.dim_value for dim in qnn.input[0].type.tensor_type.shape.dim] == [1, 1, 12, 12]


def test_a_graph_of_one_row_answers_callers_with_several_and_reproduces_its_golden_cases(
    images: Maker, tmp_path: Path
) -> None:
    recipes = (default_recipe(TARGETS["qnn"], "int8"), VariantRecipe("fp32"))
    made = make_variants(images.prepared, np.arange(32), np.arange(32, 96), Rules(recipes, max_loss=1.0))
    qnn, plain = made.variants
    rows = images.prepared.part(np.arange(32, 96))[0]
    package = Bench(images.prepared, rows).package(tmp_path / "package", {"plain": plain, "qnn": qnn})
    session = ModelSession.load(package, "qnn")  # on the CPU, which takes any shape
    assert session.inputs[0].shape == (-1, 1, 12, 12) and session.outputs[0].shape[0] == -1
    assert check_golden(session, package).ok
    names = [spec.name for spec in session.outputs]
    several = dict(zip(names, session.run({"image": rows["image"][:5]}), strict=True))
    alone = dict(zip(names, session.run({"image": rows["image"][4:5]}), strict=True))
    assert several["probabilities"].shape == (5, networks.CLASSES)
    np.testing.assert_array_equal(several["probabilities"][4:], alone["probabilities"])
