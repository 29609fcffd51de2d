"""Small questions about an ONNX graph, and small changes of it, that several modules need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeloop.package.needs import EXTENSIONS, EXTENSIONS_DOMAIN

Array = npt.NDArray[Any]
#: Domain of the operators that ONNX Runtime adds to those of ONNX; it has one version.
CONTRIB = "com.microsoft"


def producer(graph: GraphProto, tensor: str) -> NodeProto | None:
    """The node that computes a tensor; None for graph inputs and initializers."""
    return next((node for node in graph.node if tensor in node.output), None)


def consumers(graph: GraphProto, tensor: str) -> list[NodeProto]:
    """The nodes that read a tensor."""
    return [node for node in graph.node if tensor in node.input]


def initializer(graph: GraphProto, name: str) -> TensorProto | None:
    """The initializer of that name."""
    return next((tensor for tensor in graph.initializer if tensor.name == name), None)


def array_of(graph: GraphProto, name: str) -> Array | None:
    """The value of an initializer."""
    tensor = initializer(graph, name)
    return None if tensor is None else numpy_helper.to_array(tensor)


def set_array(graph: GraphProto, name: str, value: Array) -> None:
    """Add an initializer, or give an existing one another value."""
    tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
    old = initializer(graph, name)
    if old is None:
        graph.initializer.append(tensor)
    else:
        old.CopyFrom(tensor)


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def rename_tensor(graph: GraphProto, old: str, new: str) -> None:
    """Give a tensor another name wherever it occurs."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if value.name == old:
            value.name = new


def tensor_names(graph: GraphProto) -> set[str]:
    """Every name of a tensor in the graph."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update(node.input, node.output)
    return names


def free_name(graph: GraphProto, wanted: str) -> str:
    """``wanted``, or it with a number where the graph already uses it."""
    names = tensor_names(graph)
    candidates = (wanted if i == 0 else f"{wanted}_{i}" for i in range(len(names) + 1))
    return next(name for name in candidates if name not in names)


def remove_nodes(graph: GraphProto, gone: Iterable[NodeProto]) -> None:
    """Take nodes out of the graph."""
    # Every tensor has one producer, so a node's outputs identify it; Python's object identity does not (protobuf
    # wrappers).
    keys = {tuple(node.output) for node in gone}
    kept = [node for node in graph.node if tuple(node.output) not in keys]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)


def prune(model: ModelProto) -> None:
    """Drop nodes, initializers, value infos and opset imports that no output needs; import what they need."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    dead = []
    for node in reversed(list(graph.node)):
        if needed.intersection(node.output):
            needed.update(node.input)
            needed.update(_outer_names(node))
        else:
            dead.append(node)
    remove_nodes(graph, dead)
    kept = [tensor for tensor in graph.initializer if tensor.name in needed]
    copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    del graph.value_info[:]
    versions = {opset.domain: opset.version for opset in model.opset_import}
    used = {node.domain for node in all_nodes(graph)} | {""}
    if CONTRIB in used:
        # The tools that write these operators leave the import out; onnxruntime loads that, and onnx refuses it.
        versions.setdefault(CONTRIB, 1)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(d, v) for d, v in sorted(versions.items()) if d in used)


def all_nodes(graph: GraphProto) -> Iterable[NodeProto]:
    """The graph's nodes, with those of its nodes' inner graphs."""
    for node in graph.node:
        yield node
        for inner in _inner_graphs(node):
            yield from all_nodes(inner)


def needs_of(model: ModelProto) -> tuple[str, ...]:
    """What a device needs besides ONNX Runtime to run it."""
    return (EXTENSIONS,) if any(node.domain == EXTENSIONS_DOMAIN for node in all_nodes(model.graph)) else ()


def _inner_graphs(node: NodeProto) -> list[GraphProto]:
    found = [a.g for a in node.attribute if a.HasField("g")]
    return found + [g for a in node.attribute for g in a.graphs]


def _outer_names(node: NodeProto) -> set[str]:
    """Names that inner graphs may read from outside."""
    return {name for graph in _inner_graphs(node) for inner in all_nodes(graph) for name in inner.input}


def shape_of(value: Any) -> tuple[int | str, ...] | None:
    """The shape that a value info declares: numbers, names of dynamic dimensions, "?"; None where it has no shape."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?") for dim in tensor.shape.dim)
