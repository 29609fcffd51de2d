"""Execution providers: which are there, and which variant may run on which."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgeloop.runtime.ort import ort

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
COREML, OPENVINO, QNN = "CoreMLExecutionProvider", "OpenVINOExecutionProvider", "QNNExecutionProvider"

#: It sends inputs to a service, which no device of ours does.
NEVER = frozenset({"AzureExecutionProvider"})
#: Providers that take the same ordinary graph: what is made for the first may be tried on the others as well. QNN is
#: not among them: it wants graphs of its own, quantized and of fixed shapes.
ALSO: Mapping[str, tuple[str, ...]] = {CPU: (TENSORRT, CUDA, COREML, OPENVINO), CUDA: (TENSORRT,)}
#: Wheels that bring a provider.
WHEEL_OF: Mapping[str, str] = {
    CUDA: "onnxruntime-gpu",
    TENSORRT: "onnxruntime-gpu, and TensorRT's own libraries",
    OPENVINO: "onnxruntime-openvino",
    QNN: "onnxruntime-qnn",
    COREML: "onnxruntime, on macOS",
    "DmlExecutionProvider": "onnxruntime-directml, on Windows",
}


def available_providers() -> tuple[str, ...]:
    """Providers of this onnxruntime build, in its own order of preference; whether they work is another question."""
    return tuple(name for name in ort.get_available_providers() if name not in NEVER)


def runtime_version() -> str:
    """ONNX Runtime's version."""
    return str(ort.__version__)


def providers_for(ep: str, there: Collection[str]) -> tuple[str, ...]:
    """Providers on which a variant may be tried: the one that it is made for, then those that take the same graphs.

    Args:
        ep: the provider that the variant is made for.
        there: providers that may be used.
    """
    return tuple(name for name in (ep, *ALSO.get(ep, ())) if name in there)


def usable_providers(required: Collection[str] = (), allowed: Collection[str] = ()) -> tuple[str, ...]:
    """Providers of this build that the policy lets run.

    Args:
        required: of which one has to run the model; empty: any.
        allowed: that may be tried; empty: all.
    """
    return tuple(
        name
        for name in available_providers()
        if (not required or name in required) and (not allowed or name in allowed)
    )


def missing_because(provider: str) -> str:
    """Why a provider that this build lacks is not there, and what brings it."""
    wheel = WHEEL_OF.get(provider)
    mend = f"install {wheel}" if wheel else "there is no wheel of it that is known here"
    return f"{provider} is not in this onnxruntime, which has {', '.join(available_providers())}; {mend}"
