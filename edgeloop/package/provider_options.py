"""Options of an execution provider that a package may set for its variant: what belongs to the model, and nothing else.

Paths, devices, memory, plugins and everything that loads code or reads a file are the device owner's alone. Values are
text in ONNX Runtime's own form, so that it reads the package as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgeloop.package.errors import PackageError

#: Provider → options that a package may set. `edgeloop.runtime.options` has their types and meanings.
PACKAGED: Mapping[str, frozenset[str]] = {
    "CUDAExecutionProvider": frozenset(
        {"cudnn_conv_algo_search", "cudnn_conv1d_pad_to_nc1d", "prefer_nhwc", "use_tf32", "fuse_conv_bias"}
    ),
    "TensorrtExecutionProvider": frozenset(
        {
            "trt_fp16_enable",
            "trt_bf16_enable",
            "trt_int8_enable",
            "trt_layer_norm_fp32_fallback",
            "trt_min_subgraph_size",
            "trt_op_types_to_exclude",
            "trt_profile_min_shapes",
            "trt_profile_opt_shapes",
            "trt_profile_max_shapes",
        }
    ),
    "CoreMLExecutionProvider": frozenset({"ModelFormat", "RequireStaticInputShapes", "EnableOnSubgraphs"}),
    "OpenVINOExecutionProvider": frozenset({"disable_dynamic_shapes", "reshape_input", "layout"}),
    "QNNExecutionProvider": frozenset(
        {
            "htp_graph_finalization_optimization_mode",
            "enable_htp_fp16_precision",
            "offload_graph_io_quantization",
            "vtcm_mb",
        }
    ),
}
#: Shapes, layouts and names of operators need no more than this; a path would.
_TEXT = re.compile(r"[A-Za-z0-9_.,:;\[\] -]{1,1000}")


def check_provider_options(variant: str, ep: str, options: Any) -> dict[str, str]:
    """The options of a variant, as its ``executor_info.ort.provider_options`` has them.

    Raises:
        PackageError: an option is not a package's to set, or its value is no plain one.
    """
    if not isinstance(options, dict):
        raise PackageError(f"variant {variant}: provider_options has to be an object")
    may = PACKAGED.get(ep, frozenset())
    if unknown := sorted(str(name) for name in set(options) - may):
        raise PackageError(f"variant {variant}: a package may not set the provider option {unknown[0][:80]!r} of {ep}")
    for name, value in options.items():
        if not isinstance(value, str) or not _TEXT.fullmatch(value):
            raise PackageError(f"variant {variant}: the provider option {name} has to be a short text without a path")
    return dict(options)
