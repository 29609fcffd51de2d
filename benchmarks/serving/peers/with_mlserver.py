# /// script
# dependencies = ["mlserver==1.7.1", "onnxruntime==1.32.0"]
#
# [tool.edgeloop]
# name = "MLServer"
# protocol = "oip-base64"
# path = "/v2/models/model/infer"
# settings = "in its own process (parallel_workers = 0), gzip, metrics and logs off; a tensor as base64 in BYTES"
# ///
"""MLServer: ``python with_mlserver.py MODEL PORT``."""

import asyncio
import os
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings, types
from onnx_model import OnnxModel


class Runtime(MLModel):
    """Runs on the server's loop."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = OnnxModel(os.environ["PEER_MODEL"])
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """Run."""
        found = self._model.of_base64(payload.inputs[0].data[0])
        output = types.ResponseOutput(name="probabilities", shape=[1, len(found)], datatype="FP32", data=found)
        return types.InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])


async def serve(port: int) -> None:
    """Serve for ever; gRPC and metrics get ports that nobody asks."""
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,
        metrics_endpoint=None,
        parallel_workers=0,
        gzip_enabled=False,
        debug=False,
        load_models_at_startup=False,
    )
    await MLServer(settings).start([ModelSettings(name="model", implementation=Runtime)])


if __name__ == "__main__":
    os.environ["PEER_MODEL"] = sys.argv[1]
    asyncio.run(serve(int(sys.argv[2])))
