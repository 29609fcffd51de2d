# /// script
# dependencies = ["bentoml==1.4.40", "onnxruntime==1.32.0"]
#
# [tool.edgeloop]
# name = "BentoML"
# protocol = "json-base64"
# path = "/infer"
# settings = "one worker, async endpoint, request log and traces off; a tensor as base64 in JSON"
# ///
"""BentoML: ``python with_bentoml.py MODEL PORT``."""

import os
import sys
from pathlib import Path

import bentoml
from onnx_model import OnnxModel


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Service:
    """An async endpoint runs on the server's loop, which was faster than its pool of one thread."""

    def __init__(self) -> None:
        self._model = OnnxModel(os.environ["PEER_MODEL"])

    @bentoml.api
    async def infer(self, x: str) -> dict:
        """Run."""
        return {"probabilities": self._model.of_base64(x)}


if __name__ == "__main__":
    os.environ["PEER_MODEL"] = sys.argv[1]
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    command = ["serve", "with_bentoml:Service", "--host", "127.0.0.1", "--port", sys.argv[2], "--quiet"]
    os.chdir(Path(__file__).parent)
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *command])
