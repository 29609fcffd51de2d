"""The two networks that every target serves: random weights, real shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.kit import mlp
from benchmarks.models import mobilenet_v2
from edgeloop.package import Package
from model_export import build

#: Enough rows for golden cases and a profile; what they show does not matter here.
_ROWS = 48
NAMES = ("mlp", "mobilenet")


@dataclass(frozen=True)
class Network:
    """A network, made.

    Attributes:
        name: short, as the agent's model is called.
        title: for a table.
        onnx: the file that peers load.
        package: what the agent serves.
        input: name of its only input.
        row: what is asked: float32 [1, …].
        expected: probabilities of that row, by onnxruntime in this process: float32 [classes].
    """

    name: str
    title: str
    onnx: Path
    package: Package
    input: str
    row: np.ndarray
    expected: np.ndarray


def make(name: str, folder: Path) -> Network:
    """Write a network and its package into a folder."""
    random = np.random.default_rng(0)
    path = folder / f"{name}.onnx"
    if name == "mlp":
        title, row = "MLP 64 → 128 → 10", random.random((1, mlp.INPUTS), dtype=np.float32)
        onnx.save(mlp.model(), path)
        package = mlp.package(folder / f"{name}-package")
    else:
        title, row = "MobileNetV2 224 × 224", random.random((1, 3, 224, 224), dtype=np.float32)
        onnx.save(mobilenet_v2(), path)
        package = _exported(path, folder / f"{name}-package", name)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (tensor,) = session.get_inputs()
    (expected,) = session.run(["probabilities"], {tensor.name: row})
    return Network(name, title, path, package, tensor.name, row, expected[0])


def _exported(path: Path, dest: Path, name: str) -> Package:
    """As a user would export it, so that features and a profile are there and the agent observes what it serves."""
    random = np.random.default_rng(1)
    data = dest.with_suffix(".npz")
    np.savez(data, x=random.random((_ROWS, 3, 224, 224), dtype=np.float32), label=random.integers(0, 10, _ROWS))
    build(str(path), dest, data, precision=("fp32",), name=name, max_loss=1.0)
    return Package.open(dest)
