"""A package's model for other tools: a folder of MLflow, of Hugging Face, or a plain ONNX file with its labels."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

import edgeloop.runtime  # noqa: F401  turns onnxruntime's telemetry off before it is imported
from edgeloop.package import OutputSpec, Package, TensorSpec
from model_export.appearing import appearing, require_free
from model_export.errors import RequestError
from model_export.reading.loading import graph_of

#: numpy's names of the datatypes of the Open Inference Protocol.
_NUMPY = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool", "BYTES": "str"}


def convert(package: Package, destination: Path, form: str, variant: str | None = None) -> str:
    """Write the model of an audited package for another tool; the folder appears whole or not at all.

    Args:
        package: audited.
        destination: folder to be made.
        form: one of `FORMS`.
        variant: which one; None: fp32 on the CPU, else the first.

    Returns:
        The variant that was taken.

    Raises:
        RequestError: there is no such form or variant.
        DestinationError: it exists, or cannot be written there.
    """
    if form not in FORMS:
        raise RequestError(f"{form!r} is not known", f"use {', '.join(FORMS)}")
    names = list(package.variants)
    chosen = variant or next((name for name in names if name == "cpu-fp32"), names[0])
    if chosen not in names:
        raise RequestError(f"there is no variant {chosen}", f"use {', '.join(names)}")
    require_free(destination)
    with appearing(destination) as staged:
        staged.mkdir()
        onnx.save(graph_of(package, chosen), staged / "model.onnx")
        FORMS[form](package, staged)
    return chosen


def _mlflow(package: Package, folder: Path) -> None:
    """MLflow's flavours onnx and python_function: `mlflow.onnx.load_model` and `mlflow models serve` take it.

    https://mlflow.org/docs/latest/ml/model/ describes the file; JSON is YAML as well.
    """
    needs = [f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}", "mlflow", "numpy", "pandas"]
    told = {
        "flavors": {
            "onnx": {
                "code": None,
                "data": "model.onnx",
                "onnx_version": onnx.__version__,
                "providers": ["CPUExecutionProvider"],
                "onnx_session_options": None,
            },
            "python_function": {
                "data": "model.onnx",
                "env": {"virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.onnx",
                "python_version": platform.python_version(),
            },
        },
        # Of MLflow's file format; readers warn where theirs is older.
        "mlflow_version": "2.10.0",
        "signature": {
            "inputs": json.dumps([_tensor(spec) for spec in package.meta.inputs]),
            "outputs": json.dumps([_tensor(spec) for spec in package.meta.outputs]),
        },
        "metadata": _origin(package),
    }
    _write(folder / "MLmodel", told)
    python = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    _write(folder / "python_env.yaml", python)
    (folder / "requirements.txt").write_text("\n".join(needs) + "\n")


def _tensor(spec: TensorSpec | OutputSpec) -> dict[str, Any]:
    dtype = _NUMPY.get(spec.datatype, spec.datatype.lower())
    return {"name": spec.name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(spec.shape)}}


def _huggingface(package: Package, folder: Path) -> None:
    """What optimum and transformers.js look for: ``config.json`` with the labels, and the graph."""
    names = dict(enumerate(package.meta.labels))
    pictures = any(len(spec.shape) == 4 for spec in package.meta.inputs)
    task = "image-classification" if pictures else "text-classification"
    told = {
        "model_type": "edgeloop",
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "num_labels": len(names),
        "edgeloop": _origin(package) | {"task": task},
    }
    _write(folder / "config.json", told)


def _labels(package: Package, folder: Path) -> None:
    (folder / "labels.txt").write_text("\n".join(package.meta.labels) + "\n", encoding="utf-8")


def _origin(package: Package) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "digest": package.digest,
        "labels": list(package.meta.labels),
    }


def _write(path: Path, told: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


#: What a package can be written as, by name.
FORMS: Mapping[str, Callable[[Package, Path], None]] = {
    "mlflow": _mlflow,
    "huggingface": _huggingface,
    "onnx": _labels,
}
