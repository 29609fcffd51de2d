"""Options of execution providers, typed, under ONNX Runtime's own names; one class a provider.

An option that is None is ONNX Runtime's default, or what `edgeloop.runtime.launch` derives from policy and package.
The names were read from ONNX Runtime's documentation (https://onnxruntime.ai/docs/execution-providers/) and compared
with those in the provider libraries of the wheels 1.31 (CUDA, TensorRT) and 1.24 (OpenVINO). What would load code
(plugin and operator libraries, decryption) or hand over addresses is left out on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from edgeloop.records import dataclass

Words = tuple[str, str]


class OptionsError(ValueError):
    """An option does not exist, or has the wrong kind; the message names it and says what is right."""


class ProviderOptions:
    """What all have in common."""

    provider: ClassVar[str]
    #: How this provider writes false and true.
    words: ClassVar[Words] = ("0", "1")

    def to_ort(self) -> dict[str, str]:
        """As ONNX Runtime takes them: text by name; what is not set is left out."""
        found: dict[str, str] = {}
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if isinstance(value, bool):
                found[field.name] = self.words[value]
            elif isinstance(value, Mapping):
                found[field.name] = json.dumps(value)
            elif value is not None:
                found[field.name] = str(value)
        return found


@dataclass(frozen=True)
class CpuOptions(ProviderOptions):
    """``CPUExecutionProvider``: these are options of the session, and stronger than the policy's."""

    provider: ClassVar[str] = "CPUExecutionProvider"

    enable_cpu_mem_arena: Annotated[bool | None, "Memory is kept in an arena, which never shrinks."] = None
    enable_mem_pattern: Annotated[bool | None, "Memory is planned ahead for each shape of the inputs."] = None
    allow_spinning: Annotated[bool | None, "session.intra_op.allow_spinning: threads wait in a busy loop."] = None
    spin_duration_us: Annotated[int | None, "session.intra_op.spin_duration_us: for how long, microseconds."] = None
    intra_op_thread_affinities: Annotated[
        str | None, "session.intra_op_thread_affinities: processors of each thread but the first, from 1: `2;3;4`."
    ] = None
    set_denormal_as_zero: Annotated[bool | None, "session.set_denormal_as_zero: tiny numbers become 0."] = None


@dataclass(frozen=True)
class CudaOptions(ProviderOptions):
    """``CUDAExecutionProvider``."""

    provider: ClassVar[str] = "CUDAExecutionProvider"

    device_id: Annotated[int | None, "Which GPU."] = None
    gpu_mem_limit: Annotated[int | None, "Size of the arena on the GPU, bytes."] = None
    arena_extend_strategy: Annotated[
        Literal["kNextPowerOfTwo", "kSameAsRequested"] | None, "How the arena grows: doubling, or by what is needed."
    ] = None
    cudnn_conv_algo_search: Annotated[
        Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"] | None, "How cuDNN's convolution is picked, for each new shape."
    ] = None
    cudnn_conv_use_max_workspace: Annotated[bool | None, "Convolutions may take any workspace."] = None
    cudnn_conv1d_pad_to_nc1d: Annotated[bool | None, "One-dimensional convolutions are padded to [N, C, 1, D]."] = None
    do_copy_in_default_stream: Annotated[bool | None, "Copies run in the stream of the kernels."] = None
    enable_cuda_graph: Annotated[bool | None, "Kernels are captured once; shapes must not change then."] = None
    enable_skip_layer_norm_strict_mode: Annotated[bool | None, "Layer norm in full precision."] = None
    use_tf32: Annotated[bool | None, "Products of fp32 in TF32: 10 bits of mantissa."] = None
    prefer_nhwc: Annotated[bool | None, "Convolutions in NHWC."] = None
    fuse_conv_bias: Annotated[bool | None, "Convolution and bias in one kernel."] = None
    tunable_op_enable: Annotated[bool | None, "Kernels that tune themselves may be used."] = None
    tunable_op_tuning_enable: Annotated[bool | None, "They tune while the model runs."] = None
    tunable_op_max_tuning_duration_ms: Annotated[int | None, "For how long at most, milliseconds."] = None


@dataclass(frozen=True)
class TensorrtOptions(ProviderOptions):
    """``TensorrtExecutionProvider``; the caches have folders of their own (`edgeloop.runtime.compiled`)."""

    provider: ClassVar[str] = "TensorrtExecutionProvider"
    words: ClassVar[Words] = ("False", "True")

    device_id: Annotated[int | None, "Which GPU."] = None
    trt_max_workspace_size: Annotated[int | None, "Workspace of an engine, bytes."] = None
    trt_max_partition_iterations: Annotated[int | None, "Attempts to cut the graph."] = None
    trt_min_subgraph_size: Annotated[int | None, "Smaller parts go to CUDA."] = None
    trt_fp16_enable: Annotated[bool | None, "Engines may compute in FP16."] = None
    trt_bf16_enable: Annotated[bool | None, "Engines may compute in BF16."] = None
    trt_int8_enable: Annotated[bool | None, "Engines may compute in INT8."] = None
    trt_dla_enable: Annotated[bool | None, "Run on the deep learning accelerator (Jetson)."] = None
    trt_dla_core: Annotated[int | None, "Which of them."] = None
    trt_engine_cache_enable: Annotated[bool | None, "Engines are kept."] = None
    trt_timing_cache_enable: Annotated[bool | None, "Timings of kernels are kept."] = None
    trt_force_timing_cache: Annotated[bool | None, "Timings of another GPU of the same kind are believed."] = None
    trt_engine_hw_compatible: Annotated[bool | None, "Engines also run on newer GPUs."] = None
    trt_force_sequential_engine_build: Annotated[bool | None, "One engine is built at a time."] = None
    trt_context_memory_sharing_enable: Annotated[bool | None, "Parts of the graph share their memory."] = None
    trt_layer_norm_fp32_fallback: Annotated[bool | None, "Layer norm in FP32."] = None
    trt_detailed_build_log: Annotated[bool | None, "Each step of a build is logged, with its time."] = None
    trt_build_heuristics_enable: Annotated[bool | None, "Builds guess more and time less."] = None
    trt_builder_optimization_level: Annotated[int | None, "0 to 5: builds take longer, engines less."] = None
    trt_auxiliary_streams: Annotated[int | None, "Further streams; -1: TensorRT decides, 0: least memory."] = None
    trt_sparsity_enable: Annotated[bool | None, "Sparse weights are made use of."] = None
    trt_cuda_graph_enable: Annotated[bool | None, "Kernels are captured once."] = None
    trt_op_types_to_exclude: Annotated[str | None, "Operators that go to CUDA, with commas between."] = None
    trt_tactic_sources: Annotated[str | None, "Sources of kernels, such as `-CUDNN,+CUBLAS`."] = None
    trt_profile_min_shapes: Annotated[str | None, "Smallest shapes: `x:1x3x224x224`."] = None
    trt_profile_opt_shapes: Annotated[str | None, "Usual shapes."] = None
    trt_profile_max_shapes: Annotated[str | None, "Largest shapes; beyond them an engine is built anew."] = None


@dataclass(frozen=True)
class CoremlOptions(ProviderOptions):
    """``CoreMLExecutionProvider``."""

    provider: ClassVar[str] = "CoreMLExecutionProvider"

    ModelFormat: Annotated[Literal["MLProgram", "NeuralNetwork"] | None, "Format of the converted model."] = None
    MLComputeUnits: Annotated[
        Literal["ALL", "CPUOnly", "CPUAndGPU", "CPUAndNeuralEngine"] | None, "Which units may run it."
    ] = None
    RequireStaticInputShapes: Annotated[bool | None, "Nodes whose shapes vary are left to others."] = None
    EnableOnSubgraphs: Annotated[bool | None, "Bodies of loops and branches too."] = None
    SpecializationStrategy: Annotated[Literal["Default", "FastPrediction"] | None, "Load fast, or run fast."] = None
    ProfileComputePlan: Annotated[bool | None, "Log which unit runs what."] = None
    AllowLowPrecisionAccumulationOnGPU: Annotated[bool | None, "The GPU may add up in FP16."] = None


@dataclass(frozen=True)
class OpenvinoOptions(ProviderOptions):
    """``OpenVINOExecutionProvider``; precision, threads and streams are said in ``load_config`` since 1.23."""

    provider: ClassVar[str] = "OpenVINOExecutionProvider"
    words: ClassVar[Words] = ("False", "True")

    device_type: Annotated[str | None, "CPU, GPU, GPU.1, NPU, or AUTO:GPU,CPU and the like."] = None
    load_config: Annotated[Mapping[str, Any] | None, "OpenVINO's own properties by device, as a table."] = None
    disable_dynamic_shapes: Annotated[bool | None, "Shapes that vary are fixed when they are known."] = None
    reshape_input: Annotated[str | None, "Bounds of shapes for an NPU: `x[1..8,3,224,224]`."] = None
    layout: Annotated[str | None, "Layouts of inputs and outputs: `x[NCHW]`."] = None


@dataclass(frozen=True)
class QnnOptions(ProviderOptions):
    """``QNNExecutionProvider``."""

    provider: ClassVar[str] = "QNNExecutionProvider"

    backend_type: Annotated[Literal["cpu", "gpu", "htp"] | None, "Which part of the chip."] = None
    backend_path: Annotated[str | None, "Or its library: `libQnnHtp.so`."] = None
    device_id: Annotated[int | None, "Which device, with htp_arch."] = None
    htp_performance_mode: Annotated[
        Literal[
            "burst",
            "balanced",
            "default",
            "high_performance",
            "high_power_saver",
            "low_balanced",
            "low_power_saver",
            "power_saver",
            "extreme_power_saver",
            "sustained_high_performance",
        ]
        | None,
        "How fast, and how hot.",
    ] = None
    htp_graph_finalization_optimization_mode: Annotated[int | None, "0 to 3: compiles longer, runs faster."] = None
    htp_arch: Annotated[int | None, "Architecture of the HTP."] = None
    soc_model: Annotated[int | None, "Model of the chip."] = None
    vtcm_mb: Annotated[int | None, "Fast memory, MB."] = None
    rpc_control_latency: Annotated[int | None, "Microseconds."] = None
    qnn_context_priority: Annotated[Literal["low", "normal", "normal_high", "high"] | None, "Among contexts."] = None
    enable_htp_fp16_precision: Annotated[bool | None, "FP32 models run in FP16."] = None
    enable_htp_spill_fill_buffer: Annotated[bool | None, "One buffer for what does not fit."] = None
    enable_htp_shared_memory_allocator: Annotated[bool | None, "Inputs and outputs in shared memory."] = None
    offload_graph_io_quantization: Annotated[bool | None, "The CPU quantizes inputs and outputs."] = None
    profiling_level: Annotated[Literal["off", "basic", "detailed"] | None, "What is profiled."] = None


#: By ONNX Runtime's name of the provider.
FAMILIES: Mapping[str, type[ProviderOptions]] = {
    family.provider: family
    for family in (CpuOptions, CudaOptions, TensorrtOptions, CoremlOptions, OpenvinoOptions, QnnOptions)
}
#: The only whole number below 0 that means something.
_MAY_BE_NEGATIVE = {"trt_auxiliary_streams"}


def described(family: type[ProviderOptions]) -> dict[str, tuple[str, str]]:
    """Option → (its type in words, what it does); what the documentation shows."""
    hints = get_type_hints(family, include_extras=True)
    return {field.name: _described(hints[field.name]) for field in fields(family)}  # type: ignore[arg-type]


def read_options(providers: Mapping[str, Mapping[str, Any]]) -> dict[str, ProviderOptions]:
    """Options by provider, checked.

    Args:
        providers: provider → option → value, as a settings file or a package has them.

    Raises:
        OptionsError: a provider, a name or a value is wrong.
    """
    return {provider: _read(provider, values) for provider, values in providers.items()}


def _read(provider: str, values: Any) -> ProviderOptions:
    family = FAMILIES.get(provider)
    if family is None:
        raise OptionsError(f"{provider} has no options here; there are {', '.join(FAMILIES)}")
    if not isinstance(values, Mapping):
        raise OptionsError(f"{provider} has to be a table of options, not {values!r}")
    hints = get_type_hints(family, include_extras=True)
    known = [field.name for field in fields(family)]  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            import difflib  # only who is wrong pays for it

            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise OptionsError(f"{provider} has no option {name!r}; {hint}")
        kinds = _kinds(hints[name])
        if not any(_fits(value, kind) for kind in kinds):
            said = _described(hints[name])[0]
            raise OptionsError(f"{provider}.{name} has to be {said}, not {value!r}")
        if isinstance(value, int) and value < (-1 if name in _MAY_BE_NEGATIVE else 0):
            raise OptionsError(f"{provider}.{name} is {value}; it cannot be negative")
    return family(**values)


def _kinds(hint: Any) -> list[Any]:
    """What a value may be: of ``Annotated[A | B | None, …]``, A and B."""
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return [kind for kind in get_args(inner) if kind is not NoneType]


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (bool, int, str):
        return type(value) is kind  # a bool is an int to isinstance
    return isinstance(value, Mapping)


def _described(hint: Any) -> tuple[str, str]:
    words = {bool: "true or false", int: "a whole number", str: "text"}
    said = [
        " or ".join(repr(word) for word in get_args(kind))
        if get_origin(kind) is Literal
        else words.get(kind, "a table")
        for kind in _kinds(hint)
    ]
    return " or ".join(said), str(get_args(hint)[1])
