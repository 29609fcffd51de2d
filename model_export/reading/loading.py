"""An audited package's graphs and sessions, as the report and the difference need them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto

from edgeloop.package import Package
from edgeloop.package.manifest import asset_folder
from edgeloop.runtime import InferenceError, ModelLoadError, ModelSession, ProviderError, available_providers

Array = npt.NDArray[Any]
#: Rows of one run, and seconds that it may take.
BATCH, DEADLINE_S = 64, 60.0


def graph_of(package: Package, variant: str) -> ModelProto:
    """The graph of a variant with its tensors inside; the package has been audited."""
    spec = package.variants[variant]
    model: ModelProto = onnx.load(package.root / spec.model_file, load_external_data=False)
    if spec.weights_uri is not None:
        folder = package.root / asset_folder(spec.weights_uri)
        onnx.external_data_helper.load_external_data_for_model(model, str(folder))
    return model


def sessions_of(package: Package, variants: Iterable[str]) -> tuple[dict[str, ModelSession], dict[str, str]]:
    """A session of each variant that this machine has a provider for, and why the others have none."""
    here = available_providers()
    sessions: dict[str, ModelSession] = {}
    reasons: dict[str, str] = {}
    for name in variants:
        spec = package.variants[name]
        if spec.ep not in here:
            reasons[name] = f"no {spec.ep} on this machine"
            continue
        try:
            sessions[name] = ModelSession.load(package, name, spec.ep)
        except (ModelLoadError, ProviderError) as error:
            reasons[name] = str(error)
    return sessions, reasons


def probabilities(session: ModelSession, inputs: Mapping[str, Array]) -> npt.NDArray[np.float64]:
    """Probabilities [N, K] of all rows.

    Raises:
        InferenceError: the model failed, or gives no class.
    """
    name = session.output("probabilities") or session.output("logits")
    if name is None:
        raise InferenceError("the model has neither probabilities nor logits")
    # Some targets take a fixed number of rows.
    fixed = max((spec.shape[0] for spec in session.inputs if spec.shape), default=-1)
    batch, count = fixed if fixed > 0 else BATCH, len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, batch):
        (found,) = session.run({key: array[start : start + batch] for key, array in inputs.items()}, [name], DEADLINE_S)
        scores = session.probabilities({name: found})
        if scores is None or scores.ndim != 2 or not np.isfinite(scores).all():
            raise InferenceError(f"output {name} is no finite [N, classes] on the validation data")
        parts.append(scores.astype(np.float64))
    return np.concatenate(parts)
