"""Types and shapes of the tensors of a graph, also behind operators of ``com.microsoft``, which onnx does not know."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, ValueInfoProto, helper, shape_inference

from edgeloop.runtime.ort import ort
from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import CONTRIB

#: By onnxruntime's words, those that fused operators give.
_TYPES = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(float16)": TensorProto.FLOAT16,
    "tensor(int32)": TensorProto.INT32,
    "tensor(int64)": TensorProto.INT64,
    "tensor(bool)": TensorProto.BOOL,
}


def inferred(model: ModelProto) -> ModelProto:
    """The model with what is known of its tensors as value infos.

    Args:
        model: which does not change.

    Raises:
        UnsupportedModelError: it has operators of onnxruntime, and onnxruntime cannot load it.
    """
    known = shape_inference.infer_shapes(model)
    if any(node.domain == CONTRIB for node in model.graph.node):
        missing = _by_runtime(model, {value.name for value in (*known.graph.value_info, *known.graph.output)})
        known.graph.value_info.extend(missing)
    return known


def _by_runtime(model: ModelProto, known: set[str]) -> list[ValueInfoProto]:
    """What onnxruntime says of the tensors that are not known: it tells types of outputs, so all become outputs."""
    asking = ModelProto.FromString(model.SerializeToString())
    unknown = [name for node in model.graph.node for name in node.output if name and name not in known]
    asking.graph.output.extend(ValueInfoProto(name=name) for name in unknown)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(asking.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common root
        raise UnsupportedModelError(f"onnxruntime {ort.__version__} cannot load the model: {error}") from error
    told = {value.name: value for value in session.get_outputs()}
    return [
        helper.make_tensor_value_info(name, _TYPES[told[name].type], told[name].shape)
        for name in unknown
        if told[name].type in _TYPES
    ]
