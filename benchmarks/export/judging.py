"""What a model that somebody made is worth: bytes, accuracy on test rows, latency of one row; one setting for all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeloop.package import Package
from edgeloop.package.manifest import WEIGHTS_OPTION

Array = npt.NDArray[Any]
#: The setting: as an agent on a device of one core has it.
THREADS = 1
#: Of a round: seconds that one candidate is called for, and the fewest calls.
ROUND_S, FEWEST_CALLS = 0.25, 5
BATCH = 32


@dataclass
class Candidate:
    """A model that somebody made of the float32 one.

    Attributes:
        name: who made it, how.
        seconds: that it took; 0 for what was there before.
        error: why there is none, or "".
        rounds_ms: median latency of each round.
    """

    name: str
    seconds: float = 0.0
    session: Any = None
    bytes: int = 0
    accuracy: float = float("nan")
    error: str = ""
    rounds_ms: list[float] = field(default_factory=list)

    @property
    def latency_ms(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.rounds_ms) if self.rounds_ms else float("nan")


def opened(path: Path, weights: Path | None = None) -> Any:
    """A session in the one setting.

    Raises:
        Exception: onnxruntime's own; it has many.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if weights is not None:
        options.add_session_config_entry(WEIGHTS_OPTION, str(weights))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def of_file(name: str, path: Path, seconds: float) -> Candidate:
    """A peer's file."""
    return Candidate(name, seconds, opened(path), path.stat().st_size)


def of_package(name: str, folder: Path, seconds: float) -> Candidate:
    """The first variant of a package, which is the one that a device takes if nothing speaks against it."""
    package = Package.open(folder)
    variant, spec = next(iter(package.variants.items()))
    weights = None if spec.weights_uri is None else package.asset(spec.weights_uri).absolute()
    size = int(package.meta.metrics[variant]["size_bytes"])
    return Candidate(f"{name}: {variant}", seconds, opened(package.root / spec.model_file, weights), size)


def judge(candidates: Sequence[Candidate], test: Mapping[str, Array], rounds: int) -> None:
    """Accuracy of each on all test rows, then latency: every candidate in turn, round after round."""
    rows = {name: array for name, array in test.items() if name != "label"}
    able = [candidate for candidate in candidates if candidate.session is not None]
    for candidate in able:
        candidate.accuracy = _accuracy(candidate.session, rows, test["label"])
    for turn in range(rounds):
        for candidate in able[turn % len(able) :] + able[: turn % len(able)]:
            candidate.rounds_ms.append(_median_ms(candidate.session, rows, turn))


def _accuracy(session: Any, rows: Mapping[str, Array], label: Array) -> float:
    names, scores = _names(session)
    found = [
        session.run([scores], {name: rows[name][start : start + BATCH] for name in names})[0].argmax(1)
        for start in range(0, len(label), BATCH)
    ]
    return float((np.concatenate(found) == label).mean())


def _names(session: Any) -> tuple[list[str], str]:
    """The inputs, and the output with the probabilities: the one that everybody's model has."""
    scores = next(value.name for value in session.get_outputs() if "prob" in value.name)
    return [value.name for value in session.get_inputs()], scores


def _median_ms(session: Any, rows: Mapping[str, Array], turn: int) -> float:
    names, scores = _names(session)
    row = turn % len(next(iter(rows.values())))
    feed = {name: rows[name][row : row + 1] for name in names}
    session.run([scores], feed)
    times: list[float] = []
    end = time.perf_counter() + ROUND_S
    while time.perf_counter() < end or len(times) < FEWEST_CALLS:
        start = time.perf_counter()
        session.run([scores], feed)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3
