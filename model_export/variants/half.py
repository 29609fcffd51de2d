"""fp16: weights and activations in 16 bits, inputs, outputs and the head in 32."""

from __future__ import annotations

from collections.abc import Collection

from onnx import ModelProto

from model_export.errors import QuantizationError
from model_export.graphs.inferring import inferred
from model_export.variants.quantize import cleaned, left_in_float, quiet


def to_half(model: ModelProto, excluded: Collection[str] = ()) -> ModelProto:
    """The fp16 variant of a canonical model: half the bytes, and fast where the provider has fp16 kernels.

    Args:
        model: float32, with its head named where it has one.
        excluded: names of further nodes that stay in float.

    Raises:
        QuantizationError: onnxruntime's converter failed, or nothing would become fp16.
    """
    before = left_in_float(model)
    with quiet():
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        typed = inferred(model)
        try:
            half = convert_float_to_float16(
                typed,
                keep_io_types=True,
                op_block_list=DEFAULT_OP_BLOCK_LIST,
                node_block_list=sorted(before.union(excluded)),
            )
        except Exception as error:
            raise QuantizationError(
                f"onnxruntime cannot convert this model to fp16: {type(error).__name__}: {error}",
                "use --precision fp32",
            ) from error
    if not any(tensor.data_type == tensor.FLOAT16 for tensor in half.graph.initializer):
        raise QuantizationError("no weights besides the head's would become fp16", "use --precision fp32")
    return cleaned(half)
