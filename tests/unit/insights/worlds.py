"""Random batches and digits, as the tests of insights need them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import rotate

from edgeloop.insights import Observer, Profile, Window
from edgeloop.insights.calibrating import calibrated
from tests.doubles.digits import classifier, splits

Array = npt.NDArray[Any]
CLASSES, WIDTH, FEATURES = 4, 20, 6


@dataclass(frozen=True)
class Batch:
    """Inputs [N, 20], probabilities [N, 4], features [N, 6], latencies [N] and labels [N]."""

    x: Array
    p: Array
    f: Array
    ns: Array
    y: Array

    def __len__(self) -> int:
        return len(self.p)

    def part(self, start: int, end: int) -> Batch:
        return Batch(*(array[start:end] for array in (self.x, self.p, self.f, self.ns, self.y)))


def random_batch(rows: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, rows)
    f = (rng.normal(size=(rows, FEATURES)) + y[:, None] * 0.5).astype(np.float32)
    return Batch(
        rng.normal(size=(rows, WIDTH)).astype(np.float32),
        rng.dirichlet(np.ones(CLASSES), rows).astype(np.float32),
        f,
        rng.integers(10_000, 10_000_000, rows),
        y,
    )


@functools.cache
def profile() -> Profile:
    batch = random_batch(300, seed=1)
    return Profile.fit(batch.x, batch.p, batch.f, seed=5)


def observed(batch: Batch, window: Window | None = None) -> Window:
    """A window in which the batch is counted, with labels for all of it and health."""
    window = Window.zero(profile().schema, "sha256:a", "cpu-fp32", "CPU", 10.0, 20.0) if window is None else window
    observer = Observer(profile())
    observer.observe(window, batch.x, batch.p, batch.f, batch.ns)
    holdout = np.array([hash(float(v)) % 4 == 0 for v in batch.f[:, 0]], dtype=bool)
    observer.feedback(window, batch.f, batch.p.argmax(axis=1), batch.y, holdout)
    observer.error(window, 2)
    observer.escalation(window)
    observer.health(window, rss_bytes=1e8, cpu_share=0.25)
    return window


def slip(images: Array, seed: int, *, degrees: float = 25.0, light: float = 0.6, noise: float = 0.1) -> Array:
    """Digits [N, 64] as a camera sees them that has slipped."""
    turned = rotate(images.reshape(-1, 8, 8), degrees, axes=(2, 1), reshape=False, order=1)
    seen = turned * light + np.random.default_rng(seed).normal(0, noise, turned.shape)
    return np.clip(seen, 0, 1).astype(np.float32).reshape(-1, 64)


def digit_outputs(images: Array) -> tuple[Array, Array]:
    """Features [N, 64] and probabilities [N, 10] of the digits' network."""
    model = classifier()
    hidden = images
    for weight, bias in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
        hidden = np.maximum(hidden @ weight + bias, 0)
    return hidden.astype(np.float32), model.predict_proba(images).astype(np.float32)


@functools.cache
def unseen_digits() -> tuple[Array, Array]:
    """The 997 digits that the network was not trained on: images [997, 64] and labels [997]."""
    a, b = splits().validation, splits().test
    return np.concatenate([a.x, b.x]), np.concatenate([a.y, b.y])


@functools.cache
def digits_profile() -> Profile:
    """Of the digits' network, calibrated on its validation rows."""
    known = splits().validation
    features, scores = digit_outputs(known.x)
    return calibrated(Profile.fit(known.x, scores, features), known.x, scores, features, known.y)


def digits_window(
    x: Array, *, audit: Array | None = None, label: Array | None = None, y: Array | None = None
) -> Window:
    """A window of answers to images; of some the labels have come, as audits or as chosen by somebody."""
    features, scores = digit_outputs(x)
    window, observer = Window.zero(digits_profile().schema, "sha256:a"), Observer(digits_profile())
    observer.observe(window, x, scores, features, np.zeros(0, np.int64), drawn=audit)
    for chosen, of_audit in ((audit, True), (label, False)):
        if chosen is not None and y is not None:
            top, sure, none = scores.argmax(axis=1)[chosen], scores.max(axis=1)[chosen], np.zeros(chosen.sum(), bool)
            observer.feedback(window, None, top, y[chosen], none, confidence=sure, audited=none | of_audit)
    return window
