"""onnxruntime's ``quantize_dynamic``, all as it is by default."""

import sys

from onnxruntime.quantization import quantize_dynamic

if __name__ == "__main__":
    model, _, output = sys.argv[1:]
    quantize_dynamic(model, output)
