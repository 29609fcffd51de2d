"""What a measurement is true for: hardware, drivers, onnxruntime and the settings that were in force."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.records import dataclass
from edgeloop.runtime.ort import ort
from edgeloop.runtime.policy import processors
from edgeloop.runtime.providers import available_providers, runtime_version

#: Facts about the machine alone: compiled models are kept under them.
MACHINE = ("hardware", "processors", "accelerators", "drivers", "onnxruntime", "wheel", "tensorrt", "openvino")
#: Kernel modules that drive accelerators.
_MODULES = ("nvidia", "amdgpu", "i915", "xe", "intel_vpu", "amdxdna")


@dataclass(frozen=True)
class Fingerprint:
    """Facts by name, and one digest of them."""

    facts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of all facts, 64 hex digits."""
        return _digest(self.facts)

    @property
    def machine(self) -> str:
        """SHA-256 of what is about the machine alone, 16 hex digits: a folder's name."""
        return _digest({name: self.facts.get(name, "") for name in MACHINE})[:16]

    def changed(self, before: Mapping[str, str]) -> str:
        """What has changed since, as a sentence for people."""
        return "; ".join(
            f"{name}: {before.get(name, 'unknown')} → {self.facts.get(name, 'unknown')}"
            for name in dict.fromkeys((*self.facts, *before))
            if before.get(name) != self.facts.get(name)
        )


def take(settings: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint of this machine now.

    Args:
        settings: what the choice depends on besides, such as the policy; plain values by name.
    """
    facts = {
        "hardware": f"{platform.system()} {platform.machine()} {_processor()}".strip(),
        "processors": str(len(processors())),
        "accelerators": _accelerators(),
        "drivers": _drivers(),
        "onnxruntime": runtime_version(),
        "wheel": f"{getattr(ort, 'package_name', 'onnxruntime')}: {', '.join(available_providers())}",
        "tensorrt": _library("TensorRT", "tensorrt", "tensorrt_cu12", "tensorrt_cu13"),
        "openvino": _library("OpenVINO", "openvino"),
        "settings": json.dumps(settings, sort_keys=True, default=str),
    }
    return Fingerprint(facts)


def _digest(facts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()


def _processor() -> str:
    """The processor's name; on boards the board's, since many ARM processors have none."""
    for path, mark in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name"), ("/proc/cpuinfo", "Hardware")):
        text = _text(path)
        if text and not mark:
            return text
        for line in text.splitlines():
            if line.startswith(mark):
                return line.partition(":")[2].strip()
    return platform.processor()


def _accelerators() -> str:
    """PCI numbers of displays and accelerators, and what NVIDIA's driver says of its own."""
    found = set()
    for pattern in ("class/drm/card*/device", "class/accel/accel*/device"):
        for device in Path("/sys").glob(pattern):
            found.add(f"{_text(device / 'vendor')}:{_text(device / 'device')}")
    for information in Path("/proc/driver/nvidia/gpus").glob("*/information"):
        model = next((line for line in _text(information).splitlines() if line.startswith("Model:")), "")
        found.add(model.removeprefix("Model:").strip())
    if not found and Path("/dev/nvidia0").exists():  # a container may see the device and not its papers
        found.add("NVIDIA")
    return ", ".join(sorted(found)) or "none"


def _drivers() -> str:
    found = {name: _text(f"/sys/module/{name}/version") for name in _MODULES}
    nvidia = _text("/proc/driver/nvidia/version").splitlines()[:1]
    parts = [f"{name} {version}" for name, version in found.items() if version] + nvidia
    tegra = _text("/etc/nv_tegra_release").splitlines()[:1]
    if Path("/sys/module/i915").exists() or Path("/sys/module/xe").exists():
        parts.append(f"kernel {os.uname().release}")  # these have the kernel's version instead of their own
    return ", ".join(parts + tegra) or "none"


def _library(provider: str, *distributions: str) -> str:
    """Version of a library that a provider uses and that is not in its wheel."""
    if not any(name.lower().startswith(provider.lower()) for name in available_providers()):
        return "none"
    from importlib import metadata

    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "not from PyPI"


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
