"""A training program as a user would write one, and what can go wrong with it.

It fits a ridge classifier to the rows that it is given. Its parameter ``mode`` chooses what goes wrong.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    job = json.loads(Path(os.environ["EDGELOOP_JOB"]).read_text())
    parameters = job["parameters"]
    mode = parameters.get("mode", os.environ.get("TEST_MODE", ""))
    print("progress 0.1 reading")
    if mode == "crash":
        sys.exit("no room at the inn")
    if mode == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if mode == "once":  # the first attempt does not come to its end
        begun = Path(job["checkpoints"], "begun")
        if not begun.exists():
            begun.touch()
            print("progress 0.5 half way")
            time.sleep(600)
        print("going on from the checkpoint")
    output = Path(job["output"])
    if mode == "broken":
        output.write_bytes(b"\x08\x07 this is no model")
        return
    if mode == "link":
        output.symlink_to("/etc/passwd")
        return
    import numpy as np
    import onnx
    from pyarrow import parquet

    table = parquet.read_table(Path(job["data"], "training.parquet"))
    column = table.column(job["inputs"][0]["name"]).combine_chunks()
    x = np.asarray(column.flatten(), dtype=np.float64).reshape(len(column), -1)
    y = np.asarray(table.column("label"))
    weight, bias = fit(x, y, len(job["labels"]), float(parameters.get("ridge", 1.0)))
    accuracy = float(((x @ weight + bias).argmax(axis=1) == y).mean())
    print(json.dumps({"progress": 0.9, "text": f"accuracy {accuracy:.3f} on its own rows"}))
    print("result", accuracy)
    onnx.save(model(job, weight, bias, width=63 if mode == "other" else 64, endless=mode == "endless"), output)


def fit(x: Any, y: Any, classes: int, ridge: float) -> tuple[Any, Any]:
    import numpy as np

    mean = x.mean(axis=0)
    centred, truth = x - mean, np.eye(classes)[y] - 1.0 / classes
    weight = np.linalg.solve(centred.T @ centred + ridge * np.eye(x.shape[1]), centred.T @ truth)
    return 6.0 * weight, -6.0 * (mean @ weight)


def model(job: Any, weight: Any, bias: Any, width: int = 64, *, endless: bool = False) -> Any:
    """The classifier; ``endless`` is right in its form, and comes to no end."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    name = job["inputs"][0]["name"]
    arrays = {"weight": weight[:width].astype(np.float32), "bias": bias.astype(np.float32), "true": np.array(True)}
    nodes = [helper.make_node("Gemm", [name, "weight", "bias"], ["first" if endless else "logits"], name="head")]
    if endless:
        steps = [helper.make_node("Identity", [a], [b]) for a, b in (("go", "again"), ("state", "state_out"))]
        takes = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "state": TensorProto.FLOAT}
        gives = {"again": TensorProto.BOOL, "state_out": TensorProto.FLOAT}
        shape = {TensorProto.FLOAT: None}  # the others are scalars
        ends = [[helper.make_tensor_value_info(n, t, shape.get(t, [])) for n, t in e.items()] for e in (takes, gives)]
        body = helper.make_graph(steps, "body", *ends)
        nodes.append(helper.make_node("Loop", ["", "true", "first"], ["logits"], body=body))
    nodes += [
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "ridge",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", weight.shape[1]]),
        ],
        [numpy_helper.from_array(array, key) for key, array in arrays.items() if key != "true" or endless],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    main()
