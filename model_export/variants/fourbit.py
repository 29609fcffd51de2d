"""int4: weights of linear layers in 4 bits, in blocks that share a scale; for transformers and other wide layers."""

from __future__ import annotations

from collections.abc import Collection

from onnx import ModelProto

from model_export.errors import MissingLibraryError, QuantizationError
from model_export.variants.quantize import cleaned, left_in_float, quiet, split_gemms
from model_export.variants.recipes import Int4Options


def to_int4(model: ModelProto, options: Int4Options, excluded: Collection[str] = ()) -> ModelProto:
    """The int4 variant of a canonical model.

    Args:
        model: float32, with its head named where it has one.
        options: blocks, and how products are added up.
        excluded: names of further nodes that stay in float.

    Raises:
        QuantizationError: onnxruntime's quantizer failed, or there is no layer that it takes.
        MissingLibraryError: what that quantizer imports is not there.
    """
    split = split_gemms(model)
    kept = left_in_float(split).union(excluded)
    with quiet():
        try:
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
        except ImportError as error:
            raise MissingLibraryError(f"int4 needs {error.name}", "pip install 'edgeloop[export]'") from error

        quantizer = MatMulNBitsQuantizer(
            split,
            bits=4,
            block_size=options.block,
            is_symmetric=options.symmetric,
            accuracy_level=options.accuracy_level,
            nodes_to_exclude=sorted(kept),
        )
        try:
            quantizer.process()
        except Exception as error:
            raise QuantizationError(
                f"onnxruntime cannot bring this model to int4: {type(error).__name__}: {error}", "use --precision fp32"
            ) from error
    made: ModelProto = quantizer.model.model
    if not any(node.op_type == "MatMulNBits" for node in made.graph.node):
        raise QuantizationError(
            "no linear layer besides the head would be stored in 4 bits", "int4 is for transformers; use int8"
        )
    return cleaned(made)
