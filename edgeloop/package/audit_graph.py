"""What an ONNX graph may hold. Read with the onnx package, without loading a single external byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from edgeloop.package.errors import PackageError
from edgeloop.package.graph_limits import GraphLimits
from edgeloop.package.index import check_path
from edgeloop.package.needs import (
    EXTENSION_OPERATORS,
    EXTENSIONS,
    EXTENSIONS_DOMAIN,
    EXTENSIONS_OPSET,
    MAX_ATTRIBUTE_BYTES,
)

#: Domains whose operators ONNX Runtime carries itself, and the versions that we know.
KNOWN_OPSETS = {"": (7, 26), "ai.onnx": (7, 26), "ai.onnx.ml": (1, 5), "com.microsoft": (1, 1)}
KNOWN_IR = (3, 13)
#: Operators of those domains that run code or reach outside the graph.
FORBIDDEN_OPERATORS = {"PythonOp", "PythonOpGrad", "TritonOp", "EPContext", "ExternalNode"}


def audit_graph(
    path: Path,
    name: str,
    assets: Path | None,
    tensors: set[str],
    limits: GraphLimits,
    needs: Sequence[str] = (),
) -> list[str]:
    """Everything that is wrong with one graph.

    Args:
        path: the file.
        name: what messages call it.
        assets: folder of its external tensors, or None.
        tensors: names of the files there that the manifest lists for it.
        limits: bounds.
        needs: libraries that the manifest says a device needs.
    """
    if path.stat().st_size > limits.file_bytes:
        return [
            f"{name} has {path.stat().st_size:,} bytes, at most {limits.file_bytes:,}: move its tensors to own files"
        ]
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        return [f"{name} is not ONNX: {error}"]
    known = KNOWN_OPSETS | ({EXTENSIONS_DOMAIN: (EXTENSIONS_OPSET, EXTENSIONS_OPSET)} if EXTENSIONS in needs else {})
    problems = [f"{name}: {problem}" for problem in _versions(model, known)]
    if model.functions or model.training_info:
        problems.append(f"{name}: it defines functions or training of its own; export it inlined, for inference")
    try:
        for graph in _graphs(model.graph, limits.depth):
            problems += [f"{name}: {problem}" for problem in _graph(graph, assets, tensors, limits, known)]
    except PackageError as error:
        problems += [f"{name}: {problem}" for problem in error.problems]
    nodes = sum(len(graph.node) for graph in _graphs(model.graph, limits.depth)) if not problems else 0
    if nodes > limits.nodes:
        problems.append(f"{name}: {nodes:,} nodes; at most {limits.nodes:,}")
    return problems


def _versions(model: onnx.ModelProto, known: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    if not KNOWN_IR[0] <= model.ir_version <= KNOWN_IR[1]:
        yield f"IR version {model.ir_version} is not known ({KNOWN_IR[0]} to {KNOWN_IR[1]}); export it for an older one"
    if not model.opset_import:
        yield "it names no opset"
    for opset in model.opset_import:
        if opset.domain == EXTENSIONS_DOMAIN and opset.domain not in known:
            yield f"it uses operators of {EXTENSIONS}; the manifest has to say so in needs"
            continue
        if opset.domain not in known:
            yield f"the domain {opset.domain!r} would need a custom library; only ONNX Runtime's own operators are run"
            continue
        low, high = known[opset.domain]
        if not low <= opset.version <= high:
            domain = opset.domain or "ai.onnx"
            yield f"opset {opset.version} of {domain} is not known ({low} to {high}); export it for another"


def _graph(
    graph: onnx.GraphProto,
    assets: Path | None,
    tensors: set[str],
    limits: GraphLimits,
    known: Mapping[str, tuple[int, int]],
) -> Iterator[str]:
    for node in graph.node:
        if node.domain == EXTENSIONS_DOMAIN:
            yield from _extension(node)
        if node.domain not in known:
            yield f"node {node.name or node.op_type!r} is of the custom domain {node.domain!r}"
        if node.op_type in FORBIDDEN_OPERATORS:
            yield f"the operator {node.op_type} is not allowed in a package"
    for tensor in _tensors(graph):
        yield from _tensor(tensor, assets, tensors, limits)
    for value in (*graph.input, *graph.output, *graph.value_info):
        elements = 1
        for dim in value.type.tensor_type.shape.dim:
            elements *= max(1, dim.dim_value)
        if elements > limits.elements:
            yield f"{value.name} has {elements:,} elements; at most {limits.elements:,}"


def _extension(node: onnx.NodeProto) -> Iterator[str]:
    allowed = EXTENSION_OPERATORS.get(node.op_type)
    if allowed is None:
        yield (
            f"the operator {node.op_type:.60} of {EXTENSIONS} is not allowed in a package; allowed are "
            f"{', '.join(EXTENSION_OPERATORS)}"
        )
        return
    for attribute in node.attribute:
        if attribute.name not in allowed:
            yield f"the operator {node.op_type} may not have the attribute {attribute.name!r:.60}"
        if attribute.ByteSize() > MAX_ATTRIBUTE_BYTES:
            yield (
                f"the attribute {attribute.name} of {node.op_type} has {attribute.ByteSize():,} bytes; at most "
                f"{MAX_ATTRIBUTE_BYTES:,}"
            )


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph that was audited, and of the graphs inside it."""
    for inner in _graphs(graph, GraphLimits().depth):
        yield from _tensors(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _tensor(tensor: onnx.TensorProto, assets: Path | None, tensors: set[str], limits: GraphLimits) -> Iterator[str]:
    elements = 1
    for length in tensor.dims:
        if length < 0:
            yield f"tensor {tensor.name} has a negative length"
            return
        elements *= length
    if elements > limits.elements:
        yield f"tensor {tensor.name} has {elements:,} elements; at most {limits.elements:,}"
        return
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    found = {entry.key: entry.value for entry in tensor.external_data}
    location = found.get("location", "")
    try:
        check_path(location)
    except PackageError as error:
        yield f"tensor {tensor.name}: external data at {error}"
        return
    if "/" in location or assets is None or location not in tensors:
        yield f"tensor {tensor.name}: external data {location!r} is none of the variant's listed tensors"
        return
    try:
        offset, length = int(found.get("offset", "0")), int(found.get("length", "-1"))
        if len(found) != len(tensor.external_data):
            raise ValueError
    except ValueError:
        yield f"tensor {tensor.name}: offset and length of external data have to be numbers, each key once"
        return
    file = assets / location
    if not file.is_file():
        yield f"tensor {tensor.name}: {location} is missing"
    elif not (offset >= 0 and length >= 0 and offset + length <= file.stat().st_size):
        yield f"tensor {tensor.name}: bytes {offset} to {offset + length} are not all in {location}"


def _graphs(graph: onnx.GraphProto, depth: int) -> Iterator[onnx.GraphProto]:
    if depth <= 0:
        raise PackageError("subgraphs are nested too deeply")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
                yield from _graphs(inner, depth - 1)
