"""What every aspect of a window promises. A new aspect passes these by being in `ASPECTS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.insights import Observer, Profile, Window
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.base import Aspect

Array = npt.NDArray[Any]
ROWS = 90


def digits_like() -> tuple[Profile, list[Array]]:
    """A profile, and a batch: inputs, probabilities, features, latencies, true labels, held-out marks."""
    rng = np.random.default_rng(11)
    labels = rng.integers(0, 3, ROWS)
    features = np.maximum(rng.normal(size=(ROWS, 7)) + labels[:, None], 0).astype(np.float32)
    batch = [
        rng.random((ROWS, 5, 6)).astype(np.float32),
        rng.dirichlet(np.ones(3), ROWS).astype(np.float32),
        features,
        rng.integers(1, 1 << 40, ROWS),
        labels,
        np.arange(ROWS) % 4 == 1,
    ]
    return Profile.fit(batch[0], batch[1], batch[2]), batch


PROFILE, BATCH = digits_like()


def fill(rows: slice | Array = slice(None), window: Window | None = None) -> Window:
    """A window in which every aspect has counted the given rows, labels and health included."""
    window = Window.zero(PROFILE.schema, "sha256:a") if window is None else window
    inputs, probabilities, features, latency, labels, holdout = (array[rows] for array in BATCH)
    observer = Observer(PROFILE)
    observer.observe(window, inputs, probabilities, features, latency)
    observer.feedback(window, features, probabilities.argmax(axis=1), labels, holdout)
    for number in range(len(labels)):
        observer.health(window, rss_bytes=1e6 * number, cpu_share=0.5, temperature_c=40.0)
    return window


def own(aspect: Aspect, window: Window) -> dict[str, Array]:
    """The aspect's arrays in a window."""
    return {name: window.arrays[name] for name in aspect.arrays(PROFILE.schema)}


def same(one: Array, other: Array) -> bool:
    """Counts equal; sums equal but for the rounding of another order."""
    return np.array_equal(one, other) if one.dtype.kind == "i" else np.allclose(one, other, rtol=1e-12, atol=1e-9)


#: How an aspect's arrays can be spoiled so that no honest observer can have made them.
SPOILS: dict[str, Callable[[dict[str, Array]], None]] = {
    "counts": lambda a: a["counts"].__setitem__(4, a["counts"][0] + 1),
    "classes": lambda a: a["classes"].__imul__(2),
    "confidence": lambda a: a["confidence"].__iadd__(1),
    "entropy": lambda a: a["entropy"].__iadd__(1),
    "inputs": lambda a: a["inputs"].__setitem__((0, 0), 10_000),
    "projections": lambda a: a["projections"].__imul__(2),
    "latency": lambda a: a["latency"].__iadd__(1),
    "moments": lambda a: a["feature_sum"].__imul__(100.0),
    "confusion": lambda a: a["confusion"].__imul__(2),
    "head": lambda a: a["head_fit_gram"].__imul__(-1.0),
    "health": lambda a: a["health_sum"].__imul__(1e12),
}

#: The aspects that this profile says apply.
APPLIED = [aspect for aspect in ASPECTS if any(spec.size for spec in aspect.arrays(PROFILE.schema).values())]
