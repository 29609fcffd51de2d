"""How far each node of a variant is from the same node of the float variant, on validation rows.

The graphs are run with their inner tensors as further outputs, which is authoring and no serving: onnxruntime then
fuses somewhat less than it does on a device. Where it still fuses, int8 is computed by this machine's own kernels, with
what they saturate and round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, shape_inference

from model_export.errors import ExportError
from model_export.graphs.probe import Probe

Array = npt.NDArray[Any]
#: Rows that are compared, and how many at a time: inner tensors of pictures are large.
ROWS, BATCH = 64, 8
#: Numbers of one row in all inner tensors together; above, tensors are left out from the largest down.
MOST_NUMBERS = 16 << 20
_PASSING = ("QuantizeLinear", "DequantizeLinear", "Identity", "Cast", "Constant")


@dataclass(frozen=True)
class LayerError:
    """Of one node.

    Attributes:
        node: its name.
        op: its operator.
        tensor: the output that is compared.
        error: Euclidean length of the difference over all rows, as a share of the float variant's length.
        decibel: signal to noise, 20 log10 of the inverse; None where there is no difference.
    """

    node: str
    op: str
    tensor: str
    error: float
    decibel: float | None


def compared(reference: ModelProto, other: ModelProto, inputs: Mapping[str, Array]) -> tuple[LayerError, ...]:
    """The error of each node that both graphs have, in the order of the graph.

    Nodes are the same where they compute a tensor of the same name: quantizing and casting leave those names alone.

    Args:
        reference: the float graph.
        other: a variant of it.
        inputs: validation rows by name.
    """
    ours = {output for node in other.graph.node for output in node.output}
    nodes = [
        (node, node.output[0])
        for node in reference.graph.node
        if node.output[0] in ours and node.op_type not in _PASSING
    ]
    rows = {name: array[:ROWS] for name, array in inputs.items()}
    names = _that_fit(reference, [name for _, name in nodes])
    read = _as_read(other)
    try:
        plain, changed = (
            Probe(_opened(reference, names)),
            Probe(_opened(other, [read.get(name, name) for name in names])),
        )
        signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        count = len(next(iter(rows.values())))
        for start in range(0, count - count % (plain.fixed_batch or 1), plain.fixed_batch or BATCH):
            part = {name: array[start : start + (plain.fixed_batch or BATCH)] for name, array in rows.items()}
            one, two = plain.run(part), changed.run(part)
            for name in names:
                true, found = one[name].astype(np.float64), two[read.get(name, name)].astype(np.float64)
                if true.shape == found.shape:
                    signal[name] += float(np.square(true).sum())
                    noise[name] += float(np.square(true - found).sum())
    except ExportError:
        return ()
    errors = []
    for node, name in nodes:
        if name in signal and signal[name] > 0 and math.isfinite(noise[name]):
            error = math.sqrt(noise[name] / signal[name])
            errors.append(LayerError(node.name, node.op_type, name, error, -20 * math.log10(error) if error else None))
    return tuple(errors)


def _as_read(model: ModelProto) -> dict[str, str]:
    """Tensor → what the next nodes read of it: its value after it was quantized, which also stands for a ReLU."""
    after = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    quantized = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return {name: after[code] for name, code in quantized.items() if code in after}


def _opened(model: ModelProto, names: list[str]) -> ModelProto:
    """A copy whose outputs are these tensors."""
    copy = ModelProto()
    copy.CopyFrom(model)
    types = _types(copy)
    del copy.graph.output[:]
    for name in names:
        copy.graph.output.append(helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None))
    return copy


def _types(model: ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output, *inferred.input)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _that_fit(model: ModelProto, names: list[str]) -> list[str]:
    """Tensors of floating point that fit into memory together, the smallest first where not all do."""
    inferred = shape_inference.infer_shapes(model).graph
    sizes, floating = {}, (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    for value in (*inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        if tensor.elem_type in floating:
            sizes[value.name] = math.prod(dim.dim_value or 1 for dim in tensor.shape.dim)
    wanted, left = [], MOST_NUMBERS
    for name in sorted((name for name in names if name in sizes), key=lambda name: sizes[name]):
        left -= sizes[name]
        if left >= 0:
            wanted.append(name)
    return [name for name in names if name in set(wanted)]
