"""The exact list of providers that ONNX Runtime is given, also for those that this machine lacks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeloop.package import Draft, DraftVariant, OutputSpec, Package, TensorSpec, write_package
from edgeloop.runtime import ModelSession, ProviderError, read_options
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.launch import Launch, ProviderList, compiles_context, plain_layout, provider_list, wants_files
from edgeloop.runtime.ort import ort
from edgeloop.runtime.placement import ask_for_placement, left_to_the_cpu, placement_of
from edgeloop.runtime.policy import Policy
from tests.doubles import provider_double
from tests.doubles.packages import answers, make_model

CUDA, TENSORRT, COREML = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CoreMLExecutionProvider"
OPENVINO, QNN, CPU = "OpenVINOExecutionProvider", "QNNExecutionProvider", "CPUExecutionProvider"
Set = dict[str, dict[str, object]]


def package_for(dest: Path, ep: str, precision: str, options: dict[str, str] | None = None) -> Package:
    x = np.zeros((2, 64), np.float32)
    return write_package(
        dest,
        Draft(
            name="digits",
            version="1",
            variants=[DraftVariant("v", precision, make_model(), ep, "gpu", options or {})],
            labels=[str(i) for i in range(10)],
            inputs=[TensorSpec("x", "FP32", (-1, 64))],
            outputs=[OutputSpec("probabilities", "FP32", (-1, 10), "probabilities")],
            golden_inputs={"x": x},
            golden_outputs={precision: answers(make_model(), x)},
        ),
    )


def providers(
    package: Package,
    provider: str,
    policy: Policy = "balanced",
    *,
    own: Set | None = None,
    compiled: Compiled | None = None,
    fallback: bool = False,
) -> ProviderList:
    launch = Launch(provider, policy, 2, fallback, read_options(own or {}), compiled)
    return provider_list(launch, package, package.variants["v"])


def test_cpu(tmp_path: Path) -> None:
    package = package_for(tmp_path / "p", CPU, "fp32")
    assert providers(package, CPU, own={CPU: {"enable_mem_pattern": False}}, fallback=True) == [(CPU, {})]


@pytest.mark.parametrize(
    ("policy", "arena", "search"),
    [
        ("quiet", "kSameAsRequested", "HEURISTIC"),
        ("balanced", "kSameAsRequested", "HEURISTIC"),
        ("fast", "kNextPowerOfTwo", "EXHAUSTIVE"),
    ],
)
def test_cuda_follows_the_policy(tmp_path: Path, policy: Policy, arena: str, search: str) -> None:
    exact = {"arena_extend_strategy": arena, "cudnn_conv_algo_search": search, "use_tf32": "0"}
    package = package_for(tmp_path / "p", CUDA, "fp32")
    assert providers(package, CUDA, policy) == [(CUDA, exact)]
    assert providers(package, CUDA, policy, fallback=True) == [(CUDA, exact), (CPU, {})]
    own: Set = {CUDA: {"use_tf32": True, "gpu_mem_limit": 1 << 30}, QNN: {"vtcm_mb": 8}}
    assert providers(package, CUDA, policy, own=own) == [
        (CUDA, {**exact, "use_tf32": "1", "gpu_mem_limit": "1073741824"})
    ]
    half = package_for(tmp_path / "half", CUDA, "fp16")
    assert "use_tf32" not in providers(half, CUDA, policy)[0][1]


def test_the_owner_is_stronger_than_the_package(tmp_path: Path) -> None:
    package = package_for(tmp_path / "p", CUDA, "fp32", {"cudnn_conv_algo_search": "DEFAULT", "prefer_nhwc": "1"})
    ((_, options),) = providers(package, CUDA)
    assert options["cudnn_conv_algo_search"] == "DEFAULT" and options["prefer_nhwc"] == "1"
    ((_, options),) = providers(package, CUDA, own={CUDA: {"cudnn_conv_algo_search": "EXHAUSTIVE"}})
    assert options["cudnn_conv_algo_search"] == "EXHAUSTIVE" and options["prefer_nhwc"] == "1"
    (_, (_, cuda)) = providers(package, TENSORRT)
    assert cuda["prefer_nhwc"] == "1"


def test_tensorrt_has_its_caches_one_profile_and_cuda_behind_it(tmp_path: Path) -> None:
    package = package_for(tmp_path / "p", TENSORRT, "fp16")
    compiled = Compiled(tmp_path / "compiled", "machine")
    folder = tmp_path / "compiled" / "machine" / package.digest.removeprefix("sha256:")[:32] / f"v-{TENSORRT}"
    assert providers(package, TENSORRT, compiled=compiled) == [
        (
            TENSORRT,
            {
                "trt_engine_cache_enable": "True",
                "trt_engine_cache_path": str(folder),
                "trt_timing_cache_enable": "True",
                "trt_timing_cache_path": str(tmp_path / "compiled" / "machine" / "timing"),
                "trt_fp16_enable": "True",
                "trt_profile_min_shapes": "x:1x64",
                "trt_profile_opt_shapes": "x:1x64",
                "trt_profile_max_shapes": "x:32x64",
            },
        ),
        (CUDA, {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}),
    ]
    assert folder.is_dir()
    first = providers(package_for(tmp_path / "int8", TENSORRT, "int8"), TENSORRT)[0][1]
    assert first["trt_int8_enable"] == "True" and "trt_fp16_enable" not in first


def test_openvino_counts_the_policys_threads_and_stays_in_fp32(tmp_path: Path) -> None:
    package = package_for(tmp_path / "p", OPENVINO, "fp32")
    ((_, options),) = providers(package, OPENVINO)
    assert options["device_type"] == "CPU"
    assert json.loads(options["load_config"]) == {
        "CPU": {
            "INFERENCE_NUM_THREADS": "2",
            "NUM_STREAMS": "1",
            "ENABLE_CPU_PINNING": "NO",
            "INFERENCE_PRECISION_HINT": "f32",
        }
    }
    ((_, options),) = providers(package, OPENVINO, "fast", compiled=Compiled(tmp_path / "c", "m"))
    config = json.loads(options["load_config"])["CPU"]
    assert config["ENABLE_CPU_PINNING"] == "YES" and Path(config["CACHE_DIR"]).is_dir()
    own: Set = {OPENVINO: {"device_type": "NPU"}}
    assert providers(package, OPENVINO, own=own) == [(OPENVINO, {"device_type": "NPU"})]
    own = {OPENVINO: {"load_config": {"CPU": {"NUM_STREAMS": "4"}}}}
    assert json.loads(providers(package, OPENVINO, own=own)[0][1]["load_config"]) == {"CPU": {"NUM_STREAMS": "4"}}


def test_coreml_and_qnn(tmp_path: Path) -> None:
    package = package_for(tmp_path / "p", COREML, "fp32")
    assert providers(package, COREML) == [(COREML, {"ModelFormat": "MLProgram"})]
    ((_, options),) = providers(package, COREML, compiled=Compiled(tmp_path / "c", "m"))
    assert Path(options["ModelCacheDirectory"]).is_dir()
    package = package_for(tmp_path / "q", QNN, "int8")
    modes = {"quiet": "low_power_saver", "balanced": "balanced", "fast": "burst"}
    for policy in ("quiet", "balanced", "fast"):
        expected = {"backend_type": "htp", "htp_performance_mode": modes[policy]}
        assert providers(package, QNN, policy) == [(QNN, expected)]  # type: ignore[arg-type]
    own: Set = {QNN: {"backend_path": "libQnnGpu.so"}}
    assert providers(package, QNN, own=own) == [
        (QNN, {"htp_performance_mode": "balanced", "backend_path": "libQnnGpu.so"})
    ]


def test_who_compiles_to_a_model_that_can_be_loaded_again() -> None:
    assert compiles_context([(QNN, {})]) and compiles_context([(OPENVINO, {"device_type": "NPU"})])
    assert not compiles_context([(OPENVINO, {"device_type": "CPU"})]) and not compiles_context([(OPENVINO, {})])
    assert not compiles_context([(TENSORRT, {}), (CUDA, {})]) and not compiles_context([(CPU, {})])


def test_graph_and_tensors_side_by_side(tmp_path: Path, tiny: Package) -> None:
    spec = tiny.variants["cpu-fp32"]
    model = plain_layout(tiny, spec, tmp_path)
    names = {path.name for path in model.parent.iterdir()}
    assert names == {"model.onnx", *spec.tensors}
    assert spec.weights_uri is not None
    tensor = tiny.asset(spec.weights_uri) / spec.tensors[0]
    assert not (model.parent / tensor.name).samefile(tensor), "a package with hard links would be none any more"
    os.link(tensor, tmp_path / "blob")
    plain_layout(tiny, spec, tmp_path)
    assert (model.parent / tensor.name).samefile(tensor), "of an agent's release nothing is copied"
    (model.parent / tensor.name).unlink()
    (model.parent / tensor.name).write_bytes(b"of an earlier release")
    plain_layout(tiny, spec, tmp_path)
    assert (model.parent / tensor.name).read_bytes() == tensor.read_bytes()
    assert wants_files(OPENVINO) and wants_files(TENSORRT) and not wants_files(CUDA) and not wants_files(CPU)


def test_what_a_session_is_really_given(tiny: Package, doubled: Callable[[str], None]) -> None:
    doubled("fine")
    own = read_options({CUDA: {"gpu_mem_limit": 5}, CPU: {"allow_spinning": True, "set_denormal_as_zero": True}})
    session = ModelSession.load(tiny, "cpu-fp32", CUDA, policy="quiet", options=own)
    assert session.provider == CUDA and session.placement == {CUDA: 5} and session.threads == 1
    (given, entries), *_ = provider_double.SEEN
    expected = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert given == [(CUDA, {**expected, "gpu_mem_limit": "5"})]
    # Which nodes the CPU runs is looked at afterwards: those that compute shapes may.
    assert "session.disable_cpu_ep_fallback" not in entries
    assert entries["session.intra_op.allow_spinning"] == "1" and entries["session.set_denormal_as_zero"] == "1"


def test_a_provider_may_leave_shapes_to_the_cpu_and_nothing_else(tiny: Package, doubled: Callable[[str], None]) -> None:
    doubled("leave")
    with pytest.raises(ProviderError, match=r"the CPU would run \w*Gemm .*allow_cpu_fallback"):
        ModelSession.load(tiny, "cpu-fp32", CUDA)
    session = ModelSession.load(tiny, "cpu-fp32", CUDA, allow_cpu_fallback=True)
    assert session.placement[CPU] == 3 and session.placement[CUDA] == 2

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Gather", ["shape", "first"], ["rows"], name="gather", axis=0),
        helper.make_node("Concat", ["rows", "rest"], ["target"], name="concat", axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"], name="reshape"),
        helper.make_node("MatMul", ["flat", "weight"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "shapes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [
            numpy_helper.from_array(np.array([0]), "first"),
            numpy_helper.from_array(np.array([6]), "rest"),
            numpy_helper.from_array(np.ones((6, 4), np.float32), "weight"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    ask_for_placement(options)
    found = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    assert placement_of(found, dict)[CPU] > 1
    assert left_to_the_cpu(found) == ["MatMul product"]
