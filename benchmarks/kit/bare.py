"""The limit of a Python door: an asyncio loop that parses the binary request and runs the session. It checks nothing.

Run as ``python -m benchmarks.kit.bare MODEL PORT``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
INPUT = session.get_inputs()[0].name


class Loop(asyncio.Protocol):
    """One client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note whom to answer."""
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer what is whole."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            headers = dict(line.lower().split(b": ", 1) for line in self.buffer[:end].split(b"\r\n")[1:])
            size, split = int(headers[b"content-length"]), int(headers[b"inference-header-content-length"])
            if len(self.buffer) < end + 4 + size:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
            tensor = json.loads(body[:split])["inputs"][0]
            x = np.frombuffer(body, np.float32, offset=split).reshape(tensor["shape"])
            (y,) = session.run(["probabilities"], {INPUT: x})
            out = {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": y.shape,
                "parameters": {"binary_data_size": y.nbytes},
            }
            head = json.dumps({"model_name": "mlp", "outputs": [out]}).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ninference-header-content-length: %d\r\n\r\n%b%b"
                % (len(head) + y.nbytes, len(head), head, y.tobytes())
            )


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Loop, "127.0.0.1", int(sys.argv[2]))
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
