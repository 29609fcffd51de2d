"""A model's configuration, in the terms of Triton's ``ModelConfig``.

https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

from typing import Any

from edge_agent.serving.slot import Slot
from edgeloop.package import OutputSpec, TensorSpec

#: Triton names datatypes in configurations otherwise than in requests.
_TYPES = {"BYTES": "TYPE_STRING"}


def triton_configuration(slot: Slot, instances: int) -> dict[str, Any]:
    """The configuration of a model as JSON types: what a Triton client reads of batching, instances and tensors."""
    session, rules = slot.loaded.session, slot.rules
    most = slot.evidence.best_rows(rules)
    on_cpu = session.provider == "CPUExecutionProvider"
    found: dict[str, Any] = {
        "name": slot.model,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        # Triton's shapes leave out the first dimension where batches are possible; ours are whole, so it says 0.
        "max_batch_size": 0,
        "input": [_tensor(spec) for spec in slot.inputs],
        "output": [_tensor(spec) for spec in slot.usual_specs],
        "instance_group": [{"name": slot.model, "kind": "KIND_CPU" if on_cpu else "KIND_GPU", "count": instances}],
        "parameters": {
            "variant": {"string_value": session.variant},
            "execution_provider": {"string_value": session.provider},
            "largest_batch": {"string_value": str(most)},
        },
    }
    if most > 1:
        found["dynamic_batching"] = {
            "preferred_batch_size": list(rules.preferred) or [most],
            "max_queue_delay_microseconds": int(rules.delay_s * 1e6),
        }
    return found


def _tensor(spec: TensorSpec | OutputSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": _TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"),
        "dims": list(spec.shape),
    }
