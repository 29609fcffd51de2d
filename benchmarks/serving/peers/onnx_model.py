"""The network as every peer runs it: ONNX Runtime on the CPU, one thread a run, nothing else."""

from __future__ import annotations

import base64

import numpy as np
import onnxruntime as ort


class OnnxModel:
    """A session, its only input, and its output ``probabilities``."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (self.input,) = self._session.get_inputs()
        self.shape = tuple(self.input.shape[1:])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Float32 [N, …] → float32 [N, classes]."""
        return self._session.run(["probabilities"], {self.input.name: x})[0]

    def of_base64(self, text: str | bytes) -> list[float]:
        """One row as the base64 of its float32 bytes → its probabilities."""
        x = np.frombuffer(base64.b64decode(text), np.float32).reshape(1, *self.shape)
        return self(x)[0].tolist()
