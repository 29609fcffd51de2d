"""Drifts of digit images in grades: turned, dimmed, lighter, noisy, a dead column, other classes, and mixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import rotate

Array = npt.NDArray[Any]
Random = np.random.Generator
#: Images [N, 64] in 0…1 and their labels [N] become what the cameras see.
Drift = Callable[[Array, Array, Random], tuple[Array, Array]]
SIDE = 8


@dataclass(frozen=True)
class Grade:
    """One strength of one kind of drift."""

    kind: str
    strength: str
    apply: Drift


def turned(degrees: float) -> Drift:
    """The camera has turned."""
    return _images(lambda x, r: rotate(x, degrees, axes=(2, 1), reshape=False, order=1))


def light(factor: float, offset: float = 0.0) -> Drift:
    """More or less light, and glare."""
    return _images(lambda x, r: x * factor + offset)


def noisy(sigma: float) -> Drift:
    """Gaussian noise; σ as a share of full scale."""
    return _images(lambda x, r: x + r.normal(0.0, sigma, x.shape))


def dead_column(column: int, value: float) -> Drift:
    """A column of pixels always has one value."""

    def apply(x: Array, random: Random) -> Array:
        x = x.copy()
        x[:, :, column] = value
        return x

    return _images(apply)


def other_classes(concentration: float) -> Drift:
    """Classes come in another mixture, drawn from a Dirichlet distribution: the smaller, the farther from equal."""

    def apply(x: Array, y: Array, random: Random) -> tuple[Array, Array]:
        share = random.dirichlet(np.full(10, concentration))[y] + 1e-12
        chosen = random.choice(len(y), len(y), p=share / share.sum())
        return x[chosen], y[chosen]

    return apply


def of_some(share: float, drift: Drift) -> Drift:
    """Only some of the cameras have drifted, and their rows are in one window with the others'."""

    def apply(x: Array, y: Array, random: Random) -> tuple[Array, Array]:
        seen, _ = drift(x, y, random)
        return np.where(random.random(len(x))[:, None] < share, seen, x), y

    return apply


def chain(*drifts: Drift) -> Drift:
    """One after the other."""

    def apply(x: Array, y: Array, random: Random) -> tuple[Array, Array]:
        for drift in drifts:
            x, y = drift(x, y, random)
        return x, y

    return apply


def grades() -> Sequence[Grade]:
    """Every kind, from hardly there to ruinous."""
    kinds: Mapping[str, Mapping[str, Drift]] = {
        "none": {"": light(1.0)},
        "turned": {f"{d}°": turned(d) for d in (5, 10, 15, 20, 30, 40, -5, -10, -20, -30)},
        "dimmed": {f"× {f}": light(f) for f in (0.9, 0.75, 0.6, 0.45, 0.3)},
        "brighter": {f"× {f}": light(f) for f in (1.15, 1.4, 1.8)},
        "glare": {f"+ {o}": light(1 - o, o) for o in (0.05, 0.1, 0.2, 0.3)},
        "noise": {f"σ {s}": noisy(s) for s in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)},
        "dead column": {f"{c} = {v:.0f}": dead_column(c, v) for c in (1, 3, 4, 5) for v in (0.0, 1.0)},
        "other classes": {f"Dirichlet {c}": other_classes(c) for c in (5.0, 1.0, 0.3)},
        "both": {
            "classes, 10°": chain(other_classes(1.0), turned(10)),
            "classes, 20°": chain(other_classes(1.0), turned(20)),
            "25°, × 0.6, σ 0.1": chain(turned(25), light(0.6), noisy(0.1)),
        },
        "of some": {f"{s:.0%} by 40°": of_some(s, turned(40)) for s in (0.05, 0.15, 0.4)},
    }
    return [Grade(kind, strength, drift) for kind, found in kinds.items() for strength, drift in found.items()]


def _images(change: Callable[[Array, Random], Array]) -> Drift:
    def apply(x: Array, y: Array, random: Random) -> tuple[Array, Array]:
        seen = np.clip(change(x.reshape(-1, SIDE, SIDE), random), 0.0, 1.0)
        return np.asarray(seen, dtype=np.float32).reshape(len(x), SIDE * SIDE), y

    return apply
