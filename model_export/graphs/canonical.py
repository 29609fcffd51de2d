"""Bringing a graph into the one form that the rest of the tool works on.

Standard operators only; a batch dimension that is free; linear layers as Gemm; constants folded; names that are safe
as file names and the same at every build. Whatever is rewritten is compared with the source's own outputs on real rows.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, helper, inliner, version_converter

import edgeloop.runtime  # noqa: F401  turns onnxruntime's telemetry off before it is imported
from model_export.data import InputSpec
from model_export.errors import UnsupportedModelError
from model_export.graphs import rewrites
from model_export.graphs.graph import (
    Array,
    all_nodes,
    array_of,
    consumers,
    free_name,
    prune,
    rename_tensor,
    set_array,
    shape_of,
)
from model_export.graphs.measure import check_finite
from model_export.graphs.probe import Probe, alike, no_tensor

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
#: Operators of ONNX Runtime's own domain that a source may have: scikit-learn's vectorizers of texts need one.
OWN = {("com.microsoft", "Tokenizer")}
#: The oldest opset whose operators the quantizer can treat per channel is 13; what is older is brought here.
OLDEST_OPSET, UPGRADE_TO = 13, 17
#: Rows on which the rewritten graph is compared with the source.
COMPARED_ROWS = 64
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
#: Names that exporters number differently at each run or version.
_UNSTABLE = re.compile(r"onnx::|_val_\d+$|^val_\d+$|^\d+$|/")


def inputs_of(model: ModelProto) -> tuple[InputSpec, ...]:
    """The inputs a caller has to give.

    Raises:
        UnsupportedModelError: an input is no tensor of numbers or texts, or has no batch dimension.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        shape = shape_of(value)
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        except KeyError:
            dtype = np.dtype(object)
        if not shape or dtype.kind not in "fiubO":
            raise UnsupportedModelError(
                f"input {value.name} is no tensor of numbers or texts with a batch dimension",
                "export it with a first dimension for the batch",
            )
        specs.append(InputSpec(value.name, dtype, tuple(d if isinstance(d, int) else -1 for d in shape[1:])))
    return tuple(specs)


def canonical(source: ModelProto, inputs: Mapping[str, Array]) -> ModelProto:
    """The canonical form of a model, checked on the first rows of ``inputs``.

    Raises:
        UnsupportedModelError: a custom operator, a batch dimension that cannot be freed, or outputs that changed.
    """
    model = ModelProto.FromString(source.SerializeToString())
    _check_operators(model)
    rows = {name: array[:COMPARED_ROWS] for name, array in inputs.items()}
    expected = Probe(model).run(rows)
    check_finite(expected)
    if model.functions:
        model = inliner.inline_local_functions(model)
    _unlist_constants(model)
    _drop_zipmap(model)
    _check_outputs(model)
    rewrites.rewrite(model)
    _free_batch(model)
    model = _optimised(_upgraded(model))
    _flatten_biases(model)
    _drop_last_identities(model)
    prune(model)
    _name(model)
    _declare_outputs(model, expected, rows)
    return model


def _check_operators(model: ModelProto) -> None:
    known = {function.domain for function in model.functions} | set(DOMAINS)
    nodes = [node for node in all_nodes(model.graph) if (node.domain, node.op_type) not in OWN]
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in known})
    if foreign:
        raise UnsupportedModelError(
            f"the model uses operators that are not standard ONNX: {', '.join(foreign)}",
            "devices load no custom-op library; export with standard operators of the domains ai.onnx and ai.onnx.ml",
        )


def _unlist_constants(model: ModelProto) -> None:
    """Old exporters list initializers as inputs too, which makes them overridable and keeps them from being folded."""
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    del model.graph.input[:]
    model.graph.input.extend(copies)


def _drop_zipmap(model: ModelProto) -> None:
    """A list of dictionaries is no tensor; what ZipMap reads is."""
    graph = model.graph
    for node in [n for n in graph.node if n.op_type == "ZipMap"]:
        node.CopyFrom(helper.make_node("Identity", list(node.input), list(node.output)))
        for output in graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, ["N", None]))


def _check_outputs(model: ModelProto) -> None:
    for output in model.graph.output:
        if not output.type.HasField("tensor_type"):
            kind = str(output.type.WhichOneof("value")).removesuffix("_type").replace("_", " ")
            raise no_tensor(output.name, kind)


def _free_batch(model: ModelProto) -> None:
    """Declare the first dimension of every input free, and let Reshapes that fixed it copy it instead."""
    graph = model.graph
    fixed = set()
    for value in graph.input:
        first = value.type.tensor_type.shape.dim[0]
        if first.HasField("dim_value"):
            fixed.add(first.dim_value)
        first.Clear()
        first.dim_param = "N"
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    if len(fixed) != 1:
        return
    for node in [n for n in graph.node if n.op_type == "Reshape"]:
        target = array_of(graph, node.input[1])
        if target is not None and target.ndim == 1 and len(target) > 1 and target[0] in fixed:
            # 0 copies the dimension. Where this was no batch dimension the comparison of rows finds it.
            changed = target.copy()
            changed[0] = 0
            node.input[1] = free_name(graph, f"{node.input[1]}_free")
            set_array(graph, node.input[1], changed)


def _upgraded(model: ModelProto) -> ModelProto:
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if version is None:
        # Trees alone need no standard operators; what onnxruntime adds would be in the newest opset that it knows.
        model.opset_import.append(helper.make_opsetid("", UPGRADE_TO))
    if version is None or version >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, UPGRADE_TO)
    except Exception as error:
        raise UnsupportedModelError(
            f"the model has opset {version}, and cannot be brought to {UPGRADE_TO}: {error}",
            f"export it again with opset {UPGRADE_TO} or newer",
        ) from error


def _optimised(model: ModelProto) -> ModelProto:
    """What onnxruntime does whatever the hardware: folding constants, fusing MatMul + Add and batch normalisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(file)
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UnsupportedModelError(
                f"the model does not load with a free batch dimension: {error}",
                "export it with a dynamic first dimension",
            ) from error
        optimised = onnx.load(file)
    nodes = all_nodes(optimised.graph)
    foreign = any(node.domain not in DOMAINS and (node.domain, node.op_type) not in OWN for node in nodes)
    return model if foreign else optimised


def _flatten_biases(model: ModelProto) -> None:
    """scikit-learn's biases are [1, K]; a Gemm's bias is [K] everywhere else."""
    for node in [n for n in model.graph.node if n.op_type == "Gemm" and len(n.input) == 3]:
        bias = array_of(model.graph, node.input[2])
        if (
            bias is not None
            and bias.ndim == 2
            and bias.shape[0] == 1
            and len(consumers(model.graph, node.input[2])) == 1
        ):
            set_array(model.graph, node.input[2], bias[0])


def _drop_last_identities(model: ModelProto) -> None:
    """An Identity that only gives an output its name is replaced by the name."""
    graph = model.graph
    named = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    outputs = {value.name for value in graph.output}
    for node in [n for n in graph.node if n.op_type == "Identity"]:
        source, output = node.input[0], node.output[0]
        if output in outputs and source not in named:
            graph.node.remove(node)
            rename_tensor(graph, output, f"{output}_was")
            rename_tensor(graph, source, output)
            rename_tensor(graph, f"{output}_was", output)
            named.add(output)


def _name(model: ModelProto) -> None:
    """Names that are the same at every build; an initializer's is also the name of its file."""
    graph = model.graph
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type.lower()}_{i}"
        node.doc_string = ""
        del node.metadata_props[:]
    taken: set[str] = set()
    for tensor in list(graph.initializer):
        name = _stable_name(model, tensor.name)
        # Files of a package may land on a file system that does not tell upper from lower case.
        while name.lower() in taken or (name != tensor.name and name != free_name(graph, name)):
            name += "_"
        taken.add(name.lower())
        rename_tensor(graph, tensor.name, name)
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    graph.name = "model"
    graph.doc_string = ""
    for field in ("producer_name", "producer_version", "domain", "doc_string", "metadata_props", "model_version"):
        model.ClearField(field)


def _stable_name(model: ModelProto, name: str) -> str:
    if _SAFE.fullmatch(name) and not _UNSTABLE.search(name):
        return name
    reader = next(iter(consumers(model.graph, name)), None)
    if reader is None:
        return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[-100:].lstrip(".-") or "tensor"
    return f"{reader.name}.{('x', 'weight', 'bias')[min(list(reader.input).index(name), 2)]}"


def _declare_outputs(model: ModelProto, expected: Mapping[str, Array], rows: Mapping[str, Array]) -> None:
    """Declare the shapes that were seen, after comparing with the source, in a batch and row by row."""
    graph = model.graph
    probe = Probe(model)
    together, alone = probe.run(rows), probe.run({name: array[:5] for name, array in rows.items()}, batch=1)
    count = len(next(iter(rows.values())))
    for output in graph.output:
        got, was = together[output.name], expected[output.name]
        if len(got) != count or not alike(got[:5], alone[output.name]):
            raise UnsupportedModelError(
                f"output {output.name} is not computed row by row: a batch gives another result than its rows",
                "export the model with a dynamic first dimension, in inference mode; or leave this output out",
            )
        # A label may have become an index on the way; `roles` decides what it means.
        if was.dtype.kind == got.dtype.kind == "f" and not alike(was, got[: len(was)]):
            raise UnsupportedModelError(
                f"output {output.name} changed when the graph was rewritten", "please report this with the model"
            )
        if got.dtype.kind in "fiub":
            kind = helper.np_dtype_to_tensor_dtype(got.dtype)
            output.CopyFrom(helper.make_tensor_value_info(output.name, kind, ["N", *got.shape[1:]]))
