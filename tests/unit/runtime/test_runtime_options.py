"""Options of providers: names and kinds are checked, and they are written as each provider reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from edgeloop.package.provider_options import PACKAGED
from edgeloop.runtime import OptionsError, read_options
from edgeloop.runtime.options import FAMILIES, described

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "providers.md"


@pytest.mark.parametrize(
    ("provider", "values", "written"),
    [
        (
            "CUDAExecutionProvider",
            {"device_id": 1, "gpu_mem_limit": 2 << 30, "arena_extend_strategy": "kSameAsRequested", "use_tf32": False},
            {"device_id": "1", "gpu_mem_limit": "2147483648", "arena_extend_strategy": "kSameAsRequested"}
            | {"use_tf32": "0"},
        ),
        (
            "TensorrtExecutionProvider",
            {"trt_fp16_enable": True, "trt_engine_cache_enable": False, "trt_auxiliary_streams": -1},
            {"trt_fp16_enable": "True", "trt_engine_cache_enable": "False", "trt_auxiliary_streams": "-1"},
        ),
        (
            "OpenVINOExecutionProvider",
            {"device_type": "GPU", "load_config": {"GPU": {"NUM_STREAMS": "2"}}, "disable_dynamic_shapes": True},
            {"device_type": "GPU", "load_config": '{"GPU": {"NUM_STREAMS": "2"}}', "disable_dynamic_shapes": "True"},
        ),
        (
            "CoreMLExecutionProvider",
            {"MLComputeUnits": "CPUAndNeuralEngine", "RequireStaticInputShapes": True},
            {"MLComputeUnits": "CPUAndNeuralEngine", "RequireStaticInputShapes": "1"},
        ),
        (
            "QNNExecutionProvider",
            {"backend_type": "htp", "htp_performance_mode": "burst", "enable_htp_fp16_precision": False},
            {"backend_type": "htp", "htp_performance_mode": "burst", "enable_htp_fp16_precision": "0"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_written_as_the_provider_reads_them(provider: str, values: dict[str, Any], written: dict[str, str]) -> None:
    assert read_options({provider: values})[provider].to_ort() == written


@pytest.mark.parametrize(
    ("provider", "values", "said"),
    [
        ("CUDAExecutionProvider", {"gpu_memory_limit": 1}, "no option 'gpu_memory_limit'; did you mean gpu_mem_limit?"),
        ("CUDAExecutionProvider", {"xyz": 1}, "no option 'xyz'; it has device_id, gpu_mem_limit"),
        ("CUDAExecutionProvider", {"gpu_mem_limit": "2 GB"}, "gpu_mem_limit has to be a whole number, not '2 GB'"),
        ("CUDAExecutionProvider", {"gpu_mem_limit": True}, "gpu_mem_limit has to be a whole number, not True"),
        ("CUDAExecutionProvider", {"gpu_mem_limit": 1.5}, "gpu_mem_limit has to be a whole number"),
        ("CUDAExecutionProvider", {"device_id": -1}, "device_id is -1; it cannot be negative"),
        ("CUDAExecutionProvider", {"use_tf32": 1}, "use_tf32 has to be true or false, not 1"),
        ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "BEST"}, "has to be 'EXHAUSTIVE' or 'HEURISTIC' or"),
        ("TensorrtExecutionProvider", {"trt_auxiliary_streams": -2}, "cannot be negative"),
        ("TensorrtExecutionProvider", {"trt_extra_plugin_lib_paths": "x.so"}, "no option 'trt_extra_plugin_lib_paths'"),
        ("OpenVINOExecutionProvider", {"load_config": "{}"}, "load_config has to be a table"),
        ("OpenVINOExecutionProvider", {"device_type": None}, "device_type has to be text"),
        ("TpuExecutionProvider", {}, "TpuExecutionProvider has no options here; there are CPUExecutionProvider"),
        ("CPUExecutionProvider", [], "has to be a table of options"),
    ],
)
def test_what_is_wrong_is_named(provider: str, values: Any, said: str) -> None:
    with pytest.raises(OptionsError, match=re.escape(said)):
        read_options({provider: values})


def test_a_package_may_only_set_options_that_exist() -> None:
    for provider, names in PACKAGED.items():
        assert names <= set(described(FAMILIES[provider]))


def test_the_page_has_every_option_with_its_kind_and_meaning() -> None:
    page = PAGE.read_text()
    for provider, family in FAMILIES.items():
        section = page.partition(f"### `{provider}`")[2].partition("\n### ")[0]
        rows = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
        assert set(rows) == set(described(family)), provider
        for name, (kind, meaning) in described(family).items():
            assert f"| {kind} | {meaning} |" in rows[name], f"{provider}.{name}: {kind} | {meaning}"
