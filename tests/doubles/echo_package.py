"""A package whose model gives back what it gets, in every datatype that a package can have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from edgeloop.package import Draft, DraftVariant, OutputSpec, Package, TensorSpec, write_package
from edgeloop.runtime.datatypes import OIP_TO_NUMPY

#: Golden cases are safetensors, which have no texts, so BYTES are not among them; nor is BF16, which numpy has not.
ECHOED = tuple(name for name in OIP_TO_NUMPY if name != "BYTES")


def examples(datatype: str, rows: int = 2) -> np.ndarray:
    """Values [rows, 3] of a datatype, with its least and its greatest among them."""
    dtype = np.dtype(OIP_TO_NUMPY[datatype])
    if dtype.kind == "b":
        row = [True, False, True]
    elif dtype.kind == "f":
        limits = np.finfo(dtype)
        row = [limits.min, limits.tiny, limits.max]
    else:
        row = [np.iinfo(dtype).min, 7, np.iinfo(dtype).max]
    return np.array([row] * rows, dtype)


def make_echo_package(dest: Path, *, name: str = "echo", version: str = "1") -> Package:
    """Write it: inputs ``uint8``, ``fp16``, … and outputs ``uint8_again``, …, each [N, 3]."""
    names = {datatype: datatype.lower() for datatype in ECHOED}
    kinds = {datatype: helper.np_dtype_to_tensor_dtype(np.dtype(OIP_TO_NUMPY[datatype])) for datatype in ECHOED}
    nodes = [helper.make_node("Identity", [n], [f"{n}_again"], name=n) for n in names.values()]
    graph = helper.make_graph(
        nodes,
        "echo",
        [helper.make_tensor_value_info(names[d], kinds[d], ["N", 3]) for d in ECHOED],
        [helper.make_tensor_value_info(f"{names[d]}_again", kinds[d], ["N", 3]) for d in ECHOED],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    golden = {names[d]: np.ones((2, 3), OIP_TO_NUMPY[d]) for d in ECHOED}
    return write_package(
        dest,
        Draft(
            name=name,
            version=version,
            variants=[DraftVariant("cpu-fp32", "fp32", model)],
            labels=[],
            inputs=[TensorSpec(names[d], d, (-1, 3)) for d in ECHOED],
            outputs=[OutputSpec(f"{names[d]}_again", d, (-1, 3), "other") for d in ECHOED],
            golden_inputs=golden,
            golden_outputs={"fp32": {f"{n}_again": values for n, values in golden.items()}},
            lineage={"source": "tests"},
        ),
    )
