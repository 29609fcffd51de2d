"""What a variant is made for: an execution provider, the options that it sets there, and what it can compute.

Where a constraint comes from:
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (schemes of x86, Arm and GPUs),
https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html (fixed shapes, uint8 activations),
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html (symmetric int8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from model_export.errors import RequestError

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
Scheme = Literal["u8s8", "s8s8", "u8u8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Target:
    """A provider on a kind of device.

    Attributes:
        name: first part of its variants' names.
        ep: execution provider, by ONNX Runtime's name.
        device: cpu, gpu or npu, as a manifest has it.
        default: precision of the variant that is made where nobody says which.
        computes: precisions in which it computes; elsewhere they would be refused, or fall back in silence.
        schemes: of int8, best first.
        symmetric: whether activations of int8 have to be quantized around zero.
        contrib: whether it runs fused operators of ``com.microsoft``.
        fixed_shapes: whether it takes graphs of fixed shapes alone: one row then, and none that varies otherwise.
        narrow_sums: whether some of its processors add up products of bytes in 16 bits, as x86 without VNNI does.
        options: that its variants set, by precision; "" for every one.
    """

    name: str
    ep: str
    device: str
    default: Precision
    computes: tuple[Precision, ...]
    schemes: tuple[Scheme, ...] = ("u8s8",)
    symmetric: bool = False
    contrib: bool = False
    fixed_shapes: bool = False
    narrow_sums: bool = False
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def overflows(self, scheme: Scheme) -> bool:
        """Whether sums of products of bytes do not fit on some of its processors, unless weights have 7 bits."""
        return self.narrow_sums and scheme.endswith("s8")

    def provider_options(self, precision: Precision) -> dict[str, str]:
        """What a variant of this precision sets."""
        return {**self.options.get("", {}), **self.options.get(precision, {})}


_ON_CPU: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4")

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        # fp16 is stored, and computed in fp32 where the processor has no fp16 kernels: half the size.
        # Any processor has to compute the same: int8 that overflows on some is refused by the others' golden cases.
        Target("cpu", CPU, "cpu", "int8", _ON_CPU, ("u8s8", "u8u8", "s8s8"), contrib=True, narrow_sums=True),
        # The sums of VNNI have 32 bits, so weights may have all of their 8.
        Target("cpu-vnni", CPU, "cpu", "int8", _ON_CPU, ("u8s8",), contrib=True),
        Target("cpu-arm64", CPU, "cpu", "int8", _ON_CPU, ("s8s8", "u8s8"), contrib=True),
        Target("cuda", "CUDAExecutionProvider", "gpu", "fp16", ("fp32", "fp16", "int4"), contrib=True),
        Target(
            "tensorrt",
            "TensorrtExecutionProvider",
            "gpu",
            "fp16",
            ("fp32", "fp16", "bf16", "int8"),
            ("s8s8",),
            symmetric=True,
            options={
                "fp16": {"trt_fp16_enable": "True", "trt_layer_norm_fp32_fallback": "True"},
                "bf16": {"trt_bf16_enable": "True", "trt_layer_norm_fp32_fallback": "True"},
                "int8": {"trt_int8_enable": "True"},
            },
        ),
        Target(
            "coreml",
            "CoreMLExecutionProvider",
            "npu",
            "fp16",
            ("fp32", "fp16"),
            options={"": {"ModelFormat": "MLProgram"}},
        ),
        Target("openvino", "OpenVINOExecutionProvider", "cpu", "int8", ("fp32", "fp16", "int8"), ("u8s8",)),
        Target(
            "qnn",
            "QNNExecutionProvider",
            "npu",
            "int8",
            ("int8",),
            ("u8u8",),
            fixed_shapes=True,
            options={"": {"htp_graph_finalization_optimization_mode": "3"}},
        ),
    )
}


def target_of(name: str) -> Target:
    """A target by its name.

    Raises:
        RequestError: there is none of that name.
    """
    found = TARGETS.get(name)
    if found is None:
        raise RequestError(f"there is no target {name!r:.40}", f"use {', '.join(TARGETS)}")
    return found
