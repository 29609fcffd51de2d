"""Fusion: what a transformer writes in dozens of nodes as single operators of ``com.microsoft``."""

from __future__ import annotations

from onnx import ModelProto

from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import CONTRIB
from model_export.graphs.head import NODE
from model_export.variants.quantize import cleaned, quiet


def fused(model: ModelProto, has_head: bool) -> ModelProto | None:
    """The model with attention, Gelu and layer norms fused; None where there is nothing to fuse.

    It is done by ``onnxruntime.transformers``, which is in onnxruntime's wheel and needs no PyTorch. Heads and hidden
    size are found in the graph.

    Args:
        model: float32, canonical.
        has_head: whether its head is named, and has to be there afterwards.
    """
    with quiet():
        from onnxruntime.transformers import optimizer

        copy = ModelProto.FromString(model.SerializeToString())
        try:
            made = optimizer.optimize_model(copy, model_type="bert", opt_level=0, use_gpu=False)
        except Exception as error:
            raise UnsupportedModelError(f"its operators cannot be fused: {type(error).__name__}: {error}") from error
        result: ModelProto = made.model
    if not any(node.domain == CONTRIB for node in result.graph.node):
        return None
    for i, node in enumerate(result.graph.node):
        # Names say what stays in float: nodes without one would share their fate.
        node.name = node.name or f"{node.op_type.lower()}_fused_{i}"
    if has_head and not any(node.name == NODE for node in result.graph.node):
        raise UnsupportedModelError("its head does not survive fusion")
    return cleaned(result)
