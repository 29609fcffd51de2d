"""What observing costs: `make bench`, or ``python -m benchmarks.observe_cost``.

A batch of 256 rows of a 64 → 128 → 10 network is counted into a window; the bound is 1.5 µs per row. Smaller batches
and a large model are shown too, with its input as so many numbers and as an image. The best of many rounds counts: this
measures the code, not what else the machine does.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import numpy as np

from edgeloop.insights import Observer, Profile, Window

#: µs per row at 256 rows of 64 → 128 → 10.
BOUND_US = 1.5
ROUNDS = 30


def best_us(call: Callable[[], object], repeats: int) -> float:
    """The best round's time of one call, µs."""
    call()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        best = min(best, (time.perf_counter() - start) / repeats)
    return best * 1e6


def measure(inputs: tuple[int, ...], features: int, classes: int, rows: int) -> dict[str, float]:
    """µs per row of observing and of labels; µs and bytes of a window's trip."""
    rng = np.random.default_rng(0)
    size = max(rows, 32)
    x = rng.random((size, *inputs)).astype(np.float32)
    p = rng.dirichlet(np.ones(classes), size).astype(np.float32)
    f = np.maximum(rng.normal(size=(size, features)), 0).astype(np.float32)
    profile = Profile.fit(x, p, f)
    observer, window = Observer(profile), Window.zero(profile.schema, "sha256:benchmark")
    x, p, f = x[:rows], p[:rows], f[:rows]
    latency, labels = np.full(rows, 150_000), p.argmax(axis=1)
    holdout = np.arange(rows) % 4 == 0
    repeats = 20 if math.prod(inputs) < 1000 else 2
    observe = best_us(lambda: observer.observe(window, x, p, f, latency), repeats) / rows
    label = best_us(lambda: observer.feedback(window, f, labels, labels, holdout), repeats) / rows
    wire = window.to_wire()
    return {
        "observe µs/row": observe,
        "label µs/row": label,
        "merge µs": best_us(lambda: window.merge(window), repeats),
        "from_wire µs": best_us(lambda: Window.from_wire(wire, profile.schema), repeats),
        "bytes": float(len(window.to_bytes())),
    }


def main() -> int:
    """Exit status: 0 when the bound holds."""
    bounded = 0.0
    for inputs, features, classes, rows in (
        ((64,), 128, 10, 256),
        ((64,), 128, 10, 32),
        ((64,), 128, 10, 1),
        ((150_528,), 1280, 10, 8),
        ((3, 224, 224), 1280, 10, 8),
    ):
        figures = measure(inputs, features, classes, rows)
        text = "  ".join(f"{name} {value:,.2f}" for name, value in figures.items())
        print(f"{' x '.join(map(str, inputs)):>13} → {features} → {classes}, {rows:>3} rows: {text}", flush=True)
        bounded = bounded or figures["observe µs/row"]
    print(f"observing 256 rows: {bounded:.2f} µs per row, bound {BOUND_US} µs")
    return 0 if bounded <= BOUND_US else 1


if __name__ == "__main__":
    sys.exit(main())
