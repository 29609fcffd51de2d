"""Names of datatypes: the Open Inference Protocol's, numpy's and ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Open Inference Protocol → numpy. BYTES are numpy objects; numpy has nothing for BF16.
OIP_TO_NUMPY: dict[str, npt.DTypeLike] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
#: ONNX Runtime's type names → Open Inference Protocol.
ORT_TO_OIP: dict[str, str] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

_NAMES = {np.dtype(known): name for name, known in OIP_TO_NUMPY.items()}


def numpy_dtype(datatype: str) -> np.dtype[np.generic]:
    """The numpy dtype of an Open Inference Protocol datatype.

    Raises:
        KeyError: there is none.
    """
    return np.dtype(OIP_TO_NUMPY[datatype])


def oip_name(dtype: npt.DTypeLike) -> str:
    """The Open Inference Protocol's name of a numpy dtype; strings are BYTES.

    Raises:
        KeyError: there is none.
    """
    kind = np.dtype(dtype)
    if kind.kind in "OSU":
        return "BYTES"
    return _NAMES[kind]
