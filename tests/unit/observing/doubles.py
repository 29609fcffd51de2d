"""Releases that are as good as loaded, without ONNX Runtime: what observing reads of them and no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from edge_agent.ports import LoadedRelease
from edgeloop.insights import Profile

CLASSES, FEATURES, WIDTH = 4, 6, 20
LABELS = ("north", "east", "south", "west")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def batch(rows: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]:
    """Inputs [rows, WIDTH] and the outputs of a made-up model, float32."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(rows, WIDTH)).astype(np.float32)
    features = np.tanh(inputs[:, :FEATURES])
    scores = np.exp(3 * features[:, :CLASSES])
    return inputs, {"scores": scores / scores.sum(axis=1, keepdims=True), "features": features}


def profile(seed: int = 99) -> Profile:
    inputs, outputs = batch(400, seed)
    return Profile.fit(inputs, outputs["scores"], outputs["features"], projections=3)


def release(number: int = 1, *, with_profile: bool = True, variant: str = "cpu-fp32") -> LoadedRelease:
    session = SimpleNamespace(
        roles={"probabilities": "scores", "features": "features"},
        variant=variant,
        provider="CPUExecutionProvider",
        probabilities=lambda outputs: outputs["scores"],
    )
    package = SimpleNamespace(meta=SimpleNamespace(labels=LABELS))
    return LoadedRelease(digest(number), package, session, profile() if with_profile else None)  # type: ignore[arg-type]
