# /// script
# dependencies = ["nvidia-pytriton==0.7.0", "onnxruntime==1.32.0"]
#
# [tool.edgeloop]
# name = "PyTriton"
# protocol = "oip-binary"
# path = "/v2/models/model/infer"
# settings = "one instance, dynamic batching to 32 rows without delay, gRPC and metrics off; binary tensors"
# ///
"""PyTriton, whose wheel brings a Triton server: ``python with_pytriton.py MODEL PORT``."""

import os
import sys
import sysconfig

import numpy as np
from onnx_model import OnnxModel
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    # Its Python stub takes the first libpython that the loader finds, which has to be this interpreter's own.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    model = OnnxModel(sys.argv[1])

    @batch
    def infer(**inputs: np.ndarray) -> list[np.ndarray]:
        """Run a batch."""
        (x,) = inputs.values()
        return [model(x)]

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(sys.argv[2]),
        grpc_address="127.0.0.1",
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=[Tensor(name=model.input.name, dtype=np.float32, shape=model.shape)],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=32, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
