"""What is different between two graphs, and between the tensors of two packages."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from model_export.graphs.graph import all_nodes


@dataclass(frozen=True)
class TensorChange:
    """A tensor that is in both and has other values.

    Attributes:
        name: the initializer's.
        shapes: before and after.
        datatypes: before and after.
        change: Euclidean length of the difference, as a share of the old values'; None where the two cannot be
            subtracted.
        largest: largest difference of one number; None as above.
    """

    name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    datatypes: tuple[str, str]
    change: float | None
    largest: float | None


@dataclass(frozen=True)
class GraphChange:
    """Of one variant.

    Attributes:
        operators: operator → how many more there are (less: negative).
        added: nodes that only the new graph has, as ``name (operator)``.
        removed: nodes that only the old one has.
        changed: nodes of the same name with another operator, other attributes, inputs or outputs.
        opsets: domain → versions before and after, where they differ; None where it is not used.
        tensors_added: initializers that only the new graph has.
        tensors_removed: those that only the old one has.
        tensors_changed: those whose values, type or shape are others.
        tensors_same: how many are the same.
    """

    operators: dict[str, int] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    opsets: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    tensors_added: tuple[str, ...] = ()
    tensors_removed: tuple[str, ...] = ()
    tensors_changed: tuple[TensorChange, ...] = ()
    tensors_same: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether the two are the same."""
        counts = (self.added, self.removed, self.changed, self.opsets, self.operators)
        return not any((*counts, self.tensors_added, self.tensors_removed, self.tensors_changed))


def compared(old: ModelProto, new: ModelProto) -> GraphChange:
    """The change from one graph to another; nodes are the same by their names, tensors likewise."""
    before, after = _nodes(old), _nodes(new)
    operators = Counter(node.op_type for node in all_nodes(new.graph))
    operators.subtract(node.op_type for node in all_nodes(old.graph))
    opsets = {o.domain: o.version for o in old.opset_import}, {o.domain: o.version for o in new.opset_import}
    one, two = ({tensor.name: tensor for tensor in model.graph.initializer} for model in (old, new))
    both = [name for name in one if name in two]
    others = [name for name in both if _content(one[name]) != _content(two[name])]
    return GraphChange(
        operators={name: count for name, count in sorted(operators.items()) if count},
        added=tuple(_told(node) for name, node in after.items() if name not in before),
        removed=tuple(_told(node) for name, node in before.items() if name not in after),
        changed=tuple(
            _told(node) for name, node in after.items() if name in before and _content(node) != _content(before[name])
        ),
        opsets={
            domain or "ai.onnx": (opsets[0].get(domain), opsets[1].get(domain))
            for domain in sorted(opsets[0].keys() | opsets[1].keys())
            if opsets[0].get(domain) != opsets[1].get(domain)
        },
        tensors_added=tuple(name for name in two if name not in one),
        tensors_removed=tuple(name for name in one if name not in two),
        tensors_changed=tuple(_change(one[name], two[name]) for name in others),
        tensors_same=len(both) - len(others),
    )


def _nodes(model: ModelProto) -> Mapping[str, NodeProto]:
    return {node.name or f"→ {node.output[0]}": node for node in model.graph.node}


def _told(node: NodeProto) -> str:
    return f"{node.name or node.output[0]} ({node.op_type})"


def _content(part: NodeProto | TensorProto) -> str:
    return hashlib.sha256(part.SerializeToString(deterministic=True)).hexdigest()


def _change(old: TensorProto, new: TensorProto) -> TensorChange:
    shapes = tuple(old.dims), tuple(new.dims)
    types = TensorProto.DataType.Name(old.data_type), TensorProto.DataType.Name(new.data_type)
    change = largest = None
    if shapes[0] == shapes[1]:
        before, after = numpy_helper.to_array(old), numpy_helper.to_array(new)
        if before.dtype.kind in "fiub" and after.dtype.kind in "fiub":
            one = before.astype(np.float64)
            difference = after.astype(np.float64) - one
            length = float(np.linalg.norm(one.ravel()))
            change = float(np.linalg.norm(difference.ravel())) / length if length else None
            largest = float(np.abs(difference).max(initial=0.0))
    return TensorChange(new.name, shapes, types, change, largest)
