"""optimum's default for this processor, as ``optimum-cli onnxruntime quantize --avx512_vnni`` or ``--avx2`` has it."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from pathlib import Path

from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig


def config() -> object:
    """The one that its documentation names for this processor."""
    if platform.machine() in ("arm64", "aarch64"):
        return AutoQuantizationConfig.arm64(is_static=False, per_channel=False)
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    named = AutoQuantizationConfig.avx512_vnni if "avx512_vnni" in flags else AutoQuantizationConfig.avx2
    return named(is_static=False, per_channel=False)


if __name__ == "__main__":
    model, _, output = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        ORTQuantizer(Path(model)).quantize(config(), folder)
        (made,) = Path(folder).glob("*.onnx")
        shutil.move(made, output)
