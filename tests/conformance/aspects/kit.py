"""What every aspect of a window promises. A new aspect passes these by being in `ASPECTS`.

An aspect is shown in each of the `WORLDS` that first have it: models of numbers, of images, of tokens and of texts.
Nothing in a world comes from a distribution of a random generator, whose streams change between versions of NumPy: so
what is counted is the same everywhere, and can be written down (`goldens.json`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.insights import Observer, Profile, Window
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.base import Aspect
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.aspects.privacy import mark_noised
from edgeloop.insights.calibrating import calibrated
from edgeloop.insights.forms import Kind
from edgeloop.insights.packing import pack

Array = npt.NDArray[Any]
ROWS, CLASSES, FEATURES = 90, 3, 7
WORDS = [f"{a}{b}{c}" for a in "bdfg" for b in "aeio" for c in "lmnr"]


def uniform(seed: int, *shape: int) -> Array:
    """Numbers from 0 to 1 out of PCG64's raw stream, which NumPy promises not to change: float64 ``shape``."""
    raw = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)


@dataclass(frozen=True, eq=False)
class World:
    """A profile and a batch of 90 rows: inputs, scores, features, times, labels, marks of held-out and audited."""

    profile: Profile
    batch: tuple[Array, ...]

    def fill(self, rows: slice | Array = slice(None), window: Window | None = None) -> Window:
        """A window in which every aspect has counted the given rows, labels and health included."""
        window = Window.zero(self.profile.schema, "sha256:a") if window is None else window
        inputs, probabilities, features, latency, labels, holdout, drawn = (array[rows] for array in self.batch)
        observer = Observer(self.profile)
        observer.observe(
            window,
            inputs,
            probabilities,
            features,
            latency,
            queue_ns=latency // 3,
            run_ns=latency - latency // 3,
            drawn=drawn,
        )
        top, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
        weights = 1.0 + 3.0 * drawn
        observer.feedback(window, features, top, labels, holdout, confidence=sure, audited=drawn, weights=weights)
        for number in range(len(labels)):
            observer.health(window, rss_bytes=1e6 * number, cpu_share=0.5, temperature_c=40.0)
            mark_noised(window.arrays, predictions=1, variance=0.5)
        return window

    def own(self, aspect: Aspect, window: Window) -> dict[str, Array]:
        """The aspect's arrays in a window."""
        return {name: window.arrays[name] for name in aspect.arrays(self.profile.schema)}


def world(inputs: Array, kind: Kind | None = None) -> World:
    """A world whose model takes these inputs [90, …]."""
    labels = (uniform(1, ROWS) * CLASSES).astype(np.int64)
    scores = uniform(2, ROWS, CLASSES) + 0.1 + np.eye(CLASSES)[labels]
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    features = np.maximum(uniform(3, ROWS, FEATURES) - 0.3 + labels[:, None] / 4, 0).astype(np.float32)
    latency = (2e5 * (1 + 40 * uniform(4, ROWS) ** 4)).astype(np.int64)
    batch = (inputs, probabilities, features, latency, labels, np.arange(ROWS) % 4 == 1, np.arange(ROWS) % 5 == 2)
    profile = Profile.fit(inputs, probabilities, features, kind=kind)
    return World(calibrated(profile, inputs, probabilities, features, labels), batch)


@functools.cache
def worlds() -> dict[str, World]:
    """By name. What a package's profile says applies in each of them is not the same."""
    drawn = (uniform(8, ROWS, 12) ** 2 * len(WORDS)).astype(np.int64)
    lengths = 2 + (uniform(9, ROWS) * 10).astype(np.int64)
    shorter = np.arange(12) < lengths[:, None]
    texts = [" ".join(WORDS[i] for i in row[:length]) for row, length in zip(drawn, lengths, strict=True)]
    return {
        "numbers": world(uniform(5, ROWS, 5, 6).astype(np.float32)),
        "images": world((uniform(6, ROWS, 3, 10, 12) * 200 * uniform(7, ROWS)[:, None, None, None]).astype(np.uint8)),
        "tokens": world(np.where(shorter, drawn + 100, 0), "tokens"),
        "texts": world(np.array(texts, dtype=object)),
    }


def shown() -> list[tuple[Aspect, str]]:
    """Every aspect with the first world that has it; texts in both of theirs."""
    found: list[tuple[Aspect, str]] = []
    for aspect in ASPECTS:
        applies = [n for n, w in worlds().items() if any(s.size for s in aspect.arrays(w.profile.schema).values())]
        found += [(aspect, name) for name in (applies if len(applies) < len(worlds()) else applies[:1])]
    return found


def same(one: Array, other: Array) -> bool:
    """Counts equal; sums equal but for the rounding of another order."""
    return np.array_equal(one, other) if one.dtype.kind == "i" else np.allclose(one, other, rtol=1e-12, atol=1e-9)


def digest(arrays: dict[str, Array]) -> str:
    """sha256 of what goes over the wire; sums to ten digits, since processors round their last ones differently."""
    parts = hashlib.sha256()
    for name, array in arrays.items():
        if array.any():
            flat = array.reshape(-1)
            exact = repr(pack(flat)) if array.dtype.kind == "i" else " ".join(f"{value:.9e}" for value in flat)
            parts.update(f"{name}={exact}\n".encode())
    return parts.hexdigest()


@functools.cache
def digests() -> dict[str, str]:
    """``world/aspect`` → digest of what it has counted there."""
    return {
        f"{name}/{aspect.name}": digest(found.own(aspect, found.fill())) for name, found in worlds().items()
        for aspect in ASPECTS
    }  # fmt: skip


def spoil(aspect: Aspect, arrays: dict[str, Array]) -> None:
    """Change an aspect's arrays so that no honest observer can have made them."""
    if isinstance(aspect, Histogram):
        arrays[aspect.name] += 1
    else:
        SPOILS[aspect.name](arrays)


SPOILS: dict[str, Callable[[dict[str, Array]], None]] = {
    "counts": lambda a: a["counts"].__setitem__(4, a["counts"][0] + 1),
    "classes": lambda a: a["classes"].__imul__(2),
    "latency": lambda a: a["latency_queue"].__iadd__(1),
    "moments": lambda a: a["feature_sum"].__imul__(100.0),
    "confusion": lambda a: a["confusion"].__imul__(2),
    "head": lambda a: a["head_fit_gram"].__imul__(-1.0),
    "expected": lambda a: a["expected"].__imul__(2.0),
    "audits": lambda a: a["audit_chances"].__imul__(4.0),
    "health": lambda a: a["health_sum"].__imul__(1e12),
    "privacy": lambda a: a["privacy"].__imul__(2),
}
