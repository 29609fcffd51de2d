"""Neural Compressor's post-training quantization of ONNX, which its version 3 no longer has."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    model, data, output = sys.argv[1:]
    from neural_compressor.onnxrt import RTNConfig, quantize  # noqa: F401  where it was until 3.0

    sys.exit("neural_compressor.onnxrt is there again: this program has to be written anew")
