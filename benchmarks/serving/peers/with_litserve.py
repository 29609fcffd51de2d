# /// script
# dependencies = ["litserve==0.2.19", "onnxruntime==1.32.0"]
#
# [tool.edgeloop]
# name = "LitServe"
# protocol = "json-base64"
# path = "/predict"
# settings = "one worker process, one API process, fast_queue; a tensor as base64 in JSON"
# ///
"""LitServe: ``python with_litserve.py MODEL PORT``."""

import sys

import litserve
from onnx_model import OnnxModel


class Api(litserve.LitAPI):
    """One request at a time."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self._model = OnnxModel(sys.argv[1])

    def decode_request(self, request: dict) -> str:
        """Take the text out."""
        return request["x"]

    def predict(self, x: str) -> list[float]:
        """Run."""
        return self._model.of_base64(x)

    def encode_response(self, output: list[float]) -> dict:
        """Put the answer in."""
        return {"probabilities": output}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1, timeout=False, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
        access_log=False,
    )
