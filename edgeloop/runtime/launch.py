"""What ONNX Runtime is given for a session: the graph's path, the session's options, the providers with theirs.

Pure but for folders: the list of a provider that this machine lacks can be looked at, and is tested, all the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any

from edgeloop.package import Package, TensorSpec, VariantSpec
from edgeloop.records import dataclass
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.options import ProviderOptions
from edgeloop.runtime.policy import Policy
from edgeloop.runtime.providers import COREML, CPU, CUDA, OPENVINO, QNN, TENSORRT, runtime_version

#: Rows up to which TensorRT builds one engine; a larger batch makes it build another one, which takes minutes.
TENSORRT_ROWS = 32
#: A compiled model of ours; its weights lie inside or beside it.
CONTEXT_FILE = "compiled.onnx"
#: Graph and tensors in one folder, as providers expect that read the files themselves.
PLAIN_FOLDER = "plain"

ProviderList = list[tuple[str, dict[str, str]]]


@dataclass(frozen=True)
class Launch:
    """How one variant is to be run.

    Attributes:
        provider: execution provider by ONNX Runtime's name.
        policy: how much of the machine it may take.
        threads: for one run.
        allow_cpu_fallback: whether nodes that the provider does not support may run on the CPU.
        options: the owner's, by provider.
        compiled: where compiled models are kept.
    """

    provider: str
    policy: Policy
    threads: int
    allow_cpu_fallback: bool = False
    options: Mapping[str, ProviderOptions] = field(default_factory=dict)
    compiled: Compiled | None = None

    @property
    def chain(self) -> tuple[str, ...]:
        """Providers in the order in which ONNX Runtime offers them the nodes; what TensorRT leaves runs on CUDA."""
        first = (TENSORRT, CUDA) if self.provider == TENSORRT else (self.provider,)
        return (*first, CPU) if self.allow_cpu_fallback and self.provider != CPU else first

    def folder(self, package: Package, variant: str) -> Path | None:
        """Where the provider may keep what it compiles; None when it needs no files."""
        if self.compiled is None or not wants_files(self.provider):
            return None
        return self.compiled.of(package.digest, variant, self.provider)


def provider_list(launch: Launch, package: Package, spec: VariantSpec) -> ProviderList:
    """``providers=`` of ``onnxruntime.InferenceSession``.

    An option of the owner is stronger than one of the package, and that than what is derived from policy and package.
    """
    found: ProviderList = []
    for name in launch.chain:
        own = launch.options.get(name)
        given = {**(spec.provider_options if name == spec.ep else {}), **(own.to_ort() if own else {})}
        derived = _derived(name, launch, package, spec)
        # What belongs to the CPU are options of the session; the provider itself takes none.
        found.append((name, {} if name == CPU else _merged(name, derived, given)))
    return found


def _derived(name: str, launch: Launch, package: Package, spec: VariantSpec) -> dict[str, str]:
    folder = launch.folder(package, spec.name)
    exact = spec.precision == "fp32"
    fast = launch.policy == "fast"
    if name == CUDA:
        return {
            "arena_extend_strategy": "kNextPowerOfTwo" if fast else "kSameAsRequested",
            # An exhaustive search runs again for every new shape, in the middle of serving.
            "cudnn_conv_algo_search": "EXHAUSTIVE" if fast else "HEURISTIC",
            # fp32 is promised to agree with its reference to 1e-4, which TF32's ten bits cannot.
            **({"use_tf32": "0"} if exact else {}),
        }
    if name == TENSORRT:
        caches = {} if folder is None or launch.compiled is None else _tensorrt_caches(folder, launch.compiled.timing)
        precision = {"fp16": {"trt_fp16_enable": "True"}, "int8": {"trt_int8_enable": "True"}}.get(spec.precision, {})
        return {**caches, **precision, **_tensorrt_shapes(package.meta.inputs)}
    if name == OPENVINO:
        return {"device_type": "CPU", "load_config": _openvino_config(launch, exact=exact, folder=folder)}
    if name == COREML:
        cache = {} if folder is None else {"ModelCacheDirectory": str(folder)}
        return {"ModelFormat": "MLProgram", **cache}
    if name == QNN:
        mode = {"quiet": "low_power_saver", "balanced": "balanced", "fast": "burst"}[launch.policy]
        return {"backend_type": "htp", "htp_performance_mode": mode}
    return {}


def _merged(name: str, derived: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """Derived options below given ones; two ways to say the same thing are never both said."""
    if name == OPENVINO:
        device = given.get("device_type", derived["device_type"])
        if "load_config" in given or device != "CPU":
            derived = {key: value for key, value in derived.items() if key != "load_config"}
    if name == QNN and "backend_path" in given:
        derived = {key: value for key, value in derived.items() if key != "backend_type"}
    return {**derived, **given}


def _tensorrt_caches(folder: Path, timing: Path) -> dict[str, str]:
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(timing),
    }


def _tensorrt_shapes(inputs: tuple[TensorSpec, ...]) -> dict[str, str]:
    """One profile from 1 to `TENSORRT_ROWS` rows, where rows alone vary; without it every new batch is a new build."""
    if not inputs or any(-1 in tensor.shape[1:] or tensor.shape[:1] != (-1,) for tensor in inputs):
        return {}

    def shapes(rows: int) -> str:
        return ",".join(f"{t.name}:{'x'.join(str(length) for length in (rows, *t.shape[1:]))}" for t in inputs)

    return {
        "trt_profile_min_shapes": shapes(1),
        "trt_profile_opt_shapes": shapes(1),
        "trt_profile_max_shapes": shapes(TENSORRT_ROWS),
    }


def _openvino_config(launch: Launch, *, exact: bool, folder: Path | None) -> str:
    """OpenVINO's own properties; on processors with BF16 it would compute fp32 models in BF16 by itself."""
    properties = {
        "INFERENCE_NUM_THREADS": str(launch.threads),
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "YES" if launch.policy == "fast" else "NO",
        **({"INFERENCE_PRECISION_HINT": "f32"} if exact else {}),
        **({} if folder is None else {"CACHE_DIR": str(folder)}),
    }
    return json.dumps({"CPU": properties}, sort_keys=True)


def wants_files(provider: str) -> bool:
    """Whether graph and tensors have to lie side by side: for compilers, and for onnxruntime before 1.29."""
    major, minor = (int(part) for part in runtime_version().split(".")[:2])
    return provider not in (CPU, CUDA) or (major, minor) < (1, 29)


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def compiles_context(providers: ProviderList) -> bool:
    """Whether the first provider compiles to an EP-context model that it can load again.

    OpenVINO 2025.4 writes one for its CPU device and cannot load it; there its own ``CACHE_DIR`` does the same.
    """
    name, options = providers[0]
    return name == QNN or (name == OPENVINO and options.get("device_type", "CPU").startswith(("NPU", "GPU")))


def context_entries(path: Path) -> dict[str, str]:
    """Session options that have the compiled model written.

    https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html
    """
    return {"ep.context_enable": "1", "ep.context_file_path": str(path), "ep.context_embed_mode": "0"}


def plain_layout(package: Package, spec: VariantSpec, folder: Path) -> Path:
    """Put graph and tensors side by side; returns the graph's path.

    Tensors lie in an asset that variants share. ONNX Runtime itself finds them there since 1.29; older ones, and
    providers that read the files themselves, look beside the graph. An agent's release, whose files are names of its
    blobs, gets one more name for each; a file with one name is a person's own, whose package has to stay a package:
    a second name makes the audit refuse it, so it is copied.
    """
    place = folder / PLAIN_FOLDER
    place.mkdir(parents=True, exist_ok=True)
    model = package.root / spec.model_file
    sources = [model]
    if spec.weights_uri is not None:
        sources += [package.asset(spec.weights_uri) / tensor for tensor in spec.tensors]
    for source in sources:
        target = place / source.name
        if target.exists() and source.samefile(target):
            continue
        target.unlink(missing_ok=True)
        if source.stat().st_nlink > 1:
            with suppress(OSError):
                os.link(source, target)
                continue
        shutil.copyfile(source, target)
    return place / model.name


def session_entries(entries: Mapping[str, str], options: Any) -> None:
    """Add configuration entries to ``onnxruntime.SessionOptions``."""
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
