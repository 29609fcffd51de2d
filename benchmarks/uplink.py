"""What a day of insights takes of a device's network, beside sending the inputs, or one line of JSON a prediction.

Real windows of a model with 64 inputs, 128 features and 10 classes are counted from 1,000,000 predictions and packed
as the messages that the agent sends; every byte of an MQTT publish is counted, those of TCP are not. The bounds: 6 KB
for a window without head statistics, 150 KB for a day of hourly windows.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeloop.insights import HISTOGRAMS, Observer, Profile, Window, coarsen, holdout_share
from edgeloop.protocol import Insights, Topics

INPUTS, FEATURES, CLASSES = 64, 128, 10
PREDICTIONS, WINDOWS = 1_000_000, 24
BATCH = 512
LABELS_A_WINDOW = 50
WINDOW_BOUND, DAY_BOUND = 6_000, 150_000
DEVICE, FLEET, CHANNEL = "camera-1", "factory", "stable"
RELEASE = "sha256:" + "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
MIDNIGHT = 1_767_225_600.0


@dataclass(frozen=True, eq=False)
class Batch:
    """Answered predictions: inputs float32 [N, 64], features, probabilities, and nanoseconds."""

    inputs: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray
    latency_ns: np.ndarray


class World:
    """A network with random weights, and inputs whose mean wanders over the day, as light does."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(7)
        self._body = self._random.normal(0, 0.18, (INPUTS, FEATURES))
        self._head = self._random.normal(0, 0.4, (FEATURES, CLASSES))

    def batch(self, rows: int, hour: float) -> Batch:
        """Some predictions of one hour."""
        light = 1.0 + 0.1 * np.sin(2 * np.pi * hour / 24)
        inputs = (self._random.random((rows, INPUTS)) * light).astype(np.float32)
        features = np.maximum(inputs @ self._body, 0.0).astype(np.float32)
        logits = features @ self._head
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        latency = self._random.lognormal(np.log(400_000), 0.4, rows).astype(np.int64)
        return Batch(inputs, features, (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32), latency)


def day(world: World, profile: Profile, predictions: int, labels: int) -> Iterator[tuple[Window, bytes, bytes]]:
    """Each window of a day; the inputs it stands for, and the lines of JSON that would say the same."""
    observer = Observer(profile)
    for hour in range(WINDOWS):
        start = MIDNIGHT + 3600.0 * hour
        window = Window.zero(profile.schema, RELEASE, "cpu-int8", "CPUExecutionProvider", start, start + 3600.0)
        inputs, lines = bytearray(), bytearray()
        left, labelled = predictions // WINDOWS, 0
        while left:
            batch = world.batch(min(left, BATCH), hour)
            left -= len(batch.inputs)
            run_ns = batch.latency_ns * 3 // 4
            observer.observe(
                window,
                batch.inputs,
                batch.probabilities,
                batch.features,
                batch.latency_ns,
                queue_ns=batch.latency_ns - run_ns,
                run_ns=run_ns,
            )
            if labelled < labels:
                few = min(labels - labelled, len(batch.inputs))
                truth = batch.probabilities[:few].argmax(axis=1)
                holdout = np.array([holdout_share(f"{hour}-{labelled + n}") for n in range(few)])
                observer.feedback(window, batch.features[:few], truth, truth, holdout)
                labelled += few
            inputs += batch.inputs.tobytes()
            lines += b"".join(_lines(batch, start + 3600.0 - left / (predictions / WINDOWS) * 3600.0))
        yield window, bytes(inputs), bytes(lines)


def _lines(batch: Batch, moment: float) -> Iterator[bytes]:
    top = batch.probabilities.argmax(axis=1)
    for row, (label, latency) in enumerate(zip(top.tolist(), batch.latency_ns.tolist(), strict=True)):
        line = {
            "time": round(moment + row * 0.05, 3),
            "label": label,
            "confidence": round(float(batch.probabilities[row, label]), 4),
            "latency_ms": round(latency / 1e6, 3),
        }
        yield json.dumps(line, separators=(",", ":")).encode() + b"\n"


def publish_bytes(window: Window, sequence: int) -> int:
    """Bytes of the MQTT 5 publish that carries a window at QoS 1."""
    topic = Topics(FLEET).insights(DEVICE).encode()
    epoch = int(MIDNIGHT * 1000) << 16
    payload = Insights(DEVICE, epoch, sequence, sequence, sequence, window.to_wire(), CHANNEL).to_bytes()
    # Topic with its length, packet identifier, no properties, and the payload; before it the type and the length, in
    # seven bits a byte (MQTT 5, 3.3).
    size = 2 + len(topic) + 2 + 1 + len(payload)
    return 1 + max(1, (size.bit_length() + 6) // 7) + size


def main() -> int:
    """Exit status: 0 when the bounds hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uplink", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the predictions")
    predictions = PREDICTIONS // 20 if parser.parse_args().quick else PREDICTIONS
    world = World()
    fit = world.batch(2_000, 6.0)
    profile = Profile.fit(fit.inputs, fit.probabilities, fit.features)
    print(f"{predictions:,} predictions in {WINDOWS} windows; bytes a day, and of the largest window")

    sizes = {"inputs": 0, "inputs, compressed": 0, "JSON lines": 0, "JSON lines, compressed": 0}
    plain: list[int] = []
    coarse: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for number, (window, inputs, lines) in enumerate(day(world, profile, predictions, 0), start=1):
        plain.append(publish_bytes(window, number))
        for level, found in coarse.items():
            levels = {histogram.name: level for histogram in HISTOGRAMS}
            found.append(publish_bytes(coarsen(window, levels), number))
        sizes["inputs"] += len(inputs)
        sizes["inputs, compressed"] += len(zlib.compress(inputs))
        sizes["JSON lines"] += len(lines)
        sizes["JSON lines, compressed"] += len(zlib.compress(lines))
    labelled = [
        publish_bytes(window, number)
        for number, (window, _, _) in enumerate(day(world, profile, predictions // 20, LABELS_A_WINDOW), start=1)
    ]
    total = sum(plain)
    _row("windows", total, max(plain), total)
    for level, found in coarse.items():
        _row(f"under a byte budget: {2**level} bins as one", sum(found), max(found), total)
    _row(f"windows, {LABELS_A_WINDOW} labels in each: with head statistics", sum(labelled), max(labelled), total)
    for name, size in sizes.items():
        _row(name, size, size // WINDOWS, total)
    print(f"largest window {max(plain):,} bytes (bound {WINDOW_BOUND:,}), a day {total:,} bytes (bound {DAY_BOUND:,})")
    return 0 if max(plain) <= WINDOW_BOUND and total <= DAY_BOUND else 1


def _row(name: str, day_bytes: int, window_bytes: int, windows: int) -> None:
    print(f"  {name:<50} {day_bytes:>13,} {window_bytes:>11,}   {day_bytes / windows:,.1f} × the windows")


if __name__ == "__main__":
    sys.exit(main())
