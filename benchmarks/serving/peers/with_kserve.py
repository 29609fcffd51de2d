# /// script
# dependencies = ["kserve==0.21.0", "onnxruntime==1.32.0"]
#
# [tool.edgeloop]
# name = "KServe"
# protocol = "oip-base64"
# path = "/v2/models/model/infer"
# settings = "one worker, uvloop, gRPC and latency log off; a tensor as base64 in BYTES"
# ///
"""KServe: ``python with_kserve.py MODEL PORT``.

It takes binary tensors as well, but makes a list of numbers of each: a sixth of the requests/s for MobileNetV2.
"""

import logging
import sys

import kserve
from onnx_model import OnnxModel


class Predictor(kserve.Model):
    """Runs on the server's loop, as KServe's own model servers do."""

    def __init__(self, path: str) -> None:
        super().__init__("model")
        self._model = OnnxModel(path)
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        """Run."""
        found = self._model.of_base64(payload.inputs[0].data[0])
        output = kserve.InferOutput("probabilities", [1, len(found)], "FP32", data=found)
        return kserve.InferResponse(payload.id or "", "model", [output])


if __name__ == "__main__":
    logging.disable(logging.INFO)
    model, port = sys.argv[1:]
    server = kserve.ModelServer(
        http_port=int(port), workers=1, enable_grpc=False, enable_latency_logging=False, access_log_format=None
    )
    server.start([Predictor(model)])
