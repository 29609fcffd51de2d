"""Loading: from a variant and a launch to a session of ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.package import Package, VariantSpec
from edgeloop.package.manifest import WEIGHTS_OPTION
from edgeloop.runtime.compiled import remove
from edgeloop.runtime.datatypes import ORT_TO_OIP, numpy_dtype
from edgeloop.runtime.errors import ModelLoadError, ProviderError
from edgeloop.runtime.extensions import register
from edgeloop.runtime.launch import (
    CONTEXT_FILE,
    Launch,
    ProviderList,
    compiles_context,
    context_entries,
    plain_layout,
    provider_list,
    session_entries,
)
from edgeloop.runtime.options import CpuOptions
from edgeloop.runtime.ort import ort
from edgeloop.runtime.placement import ASKED, LEAVES_SHAPES, ask_for_placement, left_to_the_cpu
from edgeloop.runtime.policy import session_options
from edgeloop.runtime.providers import CPU, CUDA, TENSORRT

Array = npt.NDArray[Any]
#: ``/onnxruntime_src/…/state.cc:729 void onnxruntime::python::Register(Options&, const Options&) Please install …``
_SOURCE = re.compile(r"^/\S+\.(?:cc|h):\d+ [^A-Z]*?[\w:]+\(.*?\) (?=[A-Z\[])")


def open_session(package: Package, spec: VariantSpec, launch: Launch) -> Any:
    """The session of ONNX Runtime; a compiled model that does not load is thrown away and compiled again."""
    providers, needs = provider_list(launch, package, spec), package.meta.needs
    if CUDA in launch.chain or TENSORRT in launch.chain:
        _load_cuda()
    folder = launch.folder(package, spec.name)
    if folder is not None and compiles_context(providers):
        path = folder / CONTEXT_FILE
        if path.is_file():
            with contextlib.suppress(ProviderError):
                return _session(path, {}, providers, spec, launch, needs)
        remove(folder)
        folder.mkdir(parents=True)
        model = plain_layout(package, spec, folder)
        return _session(model, context_entries(path), providers, spec, launch, needs)
    if folder is not None:
        return _session(plain_layout(package, spec, folder), {}, providers, spec, launch, needs)
    entries = {} if spec.weights_uri is None else {WEIGHTS_OPTION: str(package.asset(spec.weights_uri).absolute())}
    return _session(package.root / spec.model_file, entries, providers, spec, launch, needs)


def _session(
    model: Path,
    entries: Mapping[str, str],
    providers: ProviderList,
    spec: VariantSpec,
    launch: Launch,
    needs: Sequence[str],
) -> Any:
    cpu = launch.options.get(CPU)
    options = session_options(launch.policy, launch.threads, cpu if isinstance(cpu, CpuOptions) else None)
    ask_for_placement(options)
    register(needs, options)
    session_entries(entries, options)
    strict = launch.provider != CPU and not launch.allow_cpu_fallback
    looked_at = strict and ASKED and launch.provider in LEAVES_SHAPES
    if strict and not looked_at:
        session_entries({"session.disable_cpu_ep_fallback": "1"}, options)
    try:
        # Without enable_fallback=0 a provider that fails, now or in a later run, is replaced by the CPU without a word.
        session = ort.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common root
        kind = ProviderError if launch.provider != CPU else ModelLoadError
        raise kind(f"{spec.name} on {launch.provider}: {first_line(error)}") from error
    if looked_at and (left := left_to_the_cpu(session)):
        told = ", ".join(left[:3]) + f" and {len(left) - 3} more" * (len(left) > 3)
        raise ProviderError(f"{spec.name} on {launch.provider}: the CPU would run {told}; allow_cpu_fallback allows it")
    return session


def _load_cuda() -> None:
    """Load CUDA's libraries from the wheels of NVIDIA, where they are; what is missing is said by the session."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def zeros_for(session: Any) -> dict[str, Array]:
    """Zeros of every input, or empty texts, one where a length may vary."""
    found = {}
    for value in session.get_inputs():
        shape = [length if isinstance(length, int) else 1 for length in value.shape]
        dtype = numpy_dtype(ORT_TO_OIP[value.type])
        found[value.name] = np.full(shape, "", dtype) if dtype.kind == "O" else np.zeros(shape, dtype)
    return found


def first_line(error: Exception) -> str:
    """What an error of ONNX Runtime says, without the place in its source before it and the trace behind it."""
    lines = str(error).strip().splitlines()
    return _SOURCE.sub("", lines[0]) if lines else type(error).__name__
