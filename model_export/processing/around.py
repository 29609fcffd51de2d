"""Putting what is declared before and after a model that is ready, and around each of its variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto, helper, version_converter

from model_export.data import InputSpec
from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import (
    Array,
    array_of,
    free_name,
    producer,
    prune,
    rename_tensor,
    set_array,
    tensor_names,
)
from model_export.graphs.measure import size_of
from model_export.graphs.probe import Probe, alike, timed
from model_export.prepare import Prepared
from model_export.processing import image, text
from model_export.processing.columns import column_pieces
from model_export.processing.pieces import DOMAINS, PREFIX, Pieces
from model_export.processing.rows import raw_specs
from model_export.processing.steps import OutputSteps, Processing, TextSteps
from model_export.sources.model import Source
from model_export.variants.made import Variant, runs_here

#: Rows on which a variant with its processing is compared with the same one without.
COMPARED_ROWS = 64


def recent_enough(source: Source, processing: Processing) -> Source:
    """The source with its model in an opset that has the operators of its processing.

    Raises:
        UnsupportedModelError: it cannot be brought there.
    """
    version = _opset(source.model)
    if processing.image is None or version >= image.OPSET:
        return source
    try:
        return replace(source, model=version_converter.convert_version(source.model, image.OPSET))
    except Exception as error:
        raise UnsupportedModelError(
            f"the model has opset {version}, pictures need {image.OPSET}, and it cannot be brought there: {error}",
            f"export it again with opset {image.OPSET} or newer",
        ) from error


def with_output(prepared: Prepared, steps: OutputSteps) -> Prepared:
    """The model with its scores as they are wanted.

    A temperature goes into the last layer where that is known, so that the hub's new layers replace it: they are fitted
    to probabilities that need none.

    Raises:
        UnsupportedModelError: scores without a last layer that is known cannot be divided.
    """
    model = ModelProto.FromString(prepared.model.SerializeToString())
    kind = prepared.roles[prepared.scores]
    if steps.temperature != 1:
        _tempered(model, prepared, kind, steps.temperature)
    if not steps.softmax or kind == "probabilities":
        return replace(prepared, model=model)
    graph = model.graph
    name = free_name(graph, "probabilities")
    graph.node.append(helper.make_node("Softmax", [prepared.scores], [name], name="softmax_of_output", axis=1))
    for output in graph.output:
        if output.name == prepared.scores:
            output.name = name
    roles = {name if old == prepared.scores else old: role for old, role in prepared.roles.items()}
    head = None if prepared.head is None else replace(prepared.head, activation="softmax")
    return replace(prepared, model=model, scores=name, roles=roles | {name: "probabilities"}, head=head)


def _tempered(model: ModelProto, prepared: Prepared, kind: str, temperature: float) -> None:
    graph, head = model.graph, prepared.head
    if head is not None:
        for name in (head.weight, head.bias):
            value = array_of(graph, name)
            assert value is not None, "a head has its tensors"
            set_array(graph, name, (value / temperature).astype(value.dtype))
        return
    node = producer(graph, prepared.scores)
    if kind != "logits" or node is None:
        raise UnsupportedModelError(
            "a temperature needs logits, or a last layer that is known", "leave it out, or export the model's logits"
        )
    inner = free_name(graph, f"{prepared.scores}_before")
    rename_tensor(graph, prepared.scores, inner)
    for output in graph.output:
        if output.name == inner:
            output.name = prepared.scores
    set_array(graph, "output_temperature", np.asarray(temperature, np.float32))
    graph.node.append(helper.make_node("Div", [inner, "output_temperature"], [prepared.scores], name="tempered_output"))


def put_around(
    processing: Processing, prepared: Prepared, variants: Sequence[Variant], raw: Mapping[str, Array], validation: Array
) -> tuple[Prepared, list[Variant]]:
    """The model and its variants as callers of the package see them.

    Args:
        processing: what is declared.
        prepared: the model itself.
        variants: of it, with their outputs on the validation rows.
        raw: what callers give, [N, …] by input, for every row of the data.
        validation: row numbers.

    Raises:
        UnsupportedModelError: the model has other inputs than its processing gives, or computes something else with it.
    """
    if not processing.before:
        return prepared, list(variants)
    rows = {name: array[validation] for name, array in raw.items()}
    trim = processing.text is not None and _looks_at_mask(prepared, processing.text)
    models = _around(processing, prepared, variants, rows, trim=trim)
    if models is None and trim:
        models = _around(processing, prepared, variants, rows, trim=False)
    if models is None:
        raise UnsupportedModelError(
            "the model gives other outputs with its processing than without",
            "please report this with the model and its processing file",
        )
    clocked = [place for place, variant in enumerate(variants) if variant.metrics.latency_ms is not None]
    timings = dict(zip(clocked, timed([models[place] for place in clocked], rows), strict=True)) if clocked else {}
    found = []
    for place, (variant, model) in enumerate(zip(variants, models, strict=True)):
        latency_ms = timings[place].median_ms if place in timings else None
        metrics = replace(variant.metrics, size_bytes=size_of(model), latency_ms=latency_ms)
        found.append(replace(variant, model=model, metrics=metrics))
    # The float model itself is no variant: what comes next looks at inputs, rows and roles alone.
    return replace(prepared, inputs=raw_specs(processing), rows=dict(raw)), found


def _around(
    processing: Processing, prepared: Prepared, variants: Sequence[Variant], rows: Mapping[str, Array], *, trim: bool
) -> list[ModelProto] | None:
    """The graphs of the variants with what comes before them; None: one gives something else then."""
    models = []
    for variant in variants:
        model = joined(variant.model, pieces_for(processing, prepared.inputs, trim=trim))
        few = {name: array[:COMPARED_ROWS] for name, array in rows.items()}
        found = Probe(model, exact=not runs_here(variant.recipe)).run(few)
        if not all(alike(variant.outputs[name][: len(array)], array) for name, array in found.items()):
            return None
        models.append(model)
    return models


def _looks_at_mask(prepared: Prepared, steps: TextSteps) -> bool:
    """Whether the model takes a mask, and texts of any length; only then a batch may be shorter than ``max_length``."""
    named = {spec.name for spec in prepared.inputs}
    return steps.mask in named and all(spec.shape == (-1,) for spec in prepared.inputs)


def pieces_for(processing: Processing, inputs: Sequence[InputSpec], *, trim: bool) -> Pieces:
    """The graph that comes before a model with these inputs.

    Raises:
        UnsupportedModelError: it gives other inputs.
    """
    kinds = {spec.name: helper.np_dtype_to_tensor_dtype(spec.dtype) for spec in inputs}
    if processing.text is not None:
        known = (processing.text.ids, processing.text.mask, processing.text.types)
        if unknown := sorted(set(kinds) - set(known)):
            raise UnsupportedModelError(
                f"the model takes {', '.join(kinds)}; its processing gives {', '.join(known)}",
                f"say in [text] which of ids, mask and types is called {unknown[0]}",
            )
        return text.text_pieces(processing.text, kinds, trim=trim)
    if len(kinds) != 1:
        raise UnsupportedModelError(
            f"the model takes {', '.join(kinds)}; its processing gives one input", "export it with one input"
        )
    ((name, kind),) = kinds.items()
    if processing.image is not None:
        return image.image_pieces(processing.image, name, kind)
    return column_pieces(processing.columns, name, kind)


def joined(model: ModelProto, pieces: Pieces) -> ModelProto:
    """One model of both; the second one's outputs."""
    both: ModelProto = ModelProto.FromString(model.SerializeToString())
    graph = both.graph
    taken = {value.name for value in pieces.inputs}
    for name in sorted(taken & tensor_names(graph)):
        rename_tensor(graph, name, f"{PREFIX}model.{name}")
        for node in pieces.nodes:
            for i, output in enumerate(node.output):
                if output == name:
                    node.output[i] = f"{PREFIX}model.{name}"
    nodes = [*pieces.nodes, *graph.node]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    # Of a target that takes fixed shapes alone.
    rows = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    del graph.input[:]
    graph.input.extend(pieces.inputs)
    for value in graph.input if rows else ():
        value.type.tensor_type.shape.dim[0].dim_value = rows
    graph.initializer.extend(pieces.constants.values())
    there = {opset.domain for opset in both.opset_import}
    for domain, version in DOMAINS.items():
        if domain not in there:
            both.opset_import.append(helper.make_opsetid(domain, version))
    prune(both)
    return both


def _opset(model: ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
