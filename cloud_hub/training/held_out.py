"""How a candidate answers the held-out rows of a dataset, beside the current release: measured in a child of the hub.

Nobody knows the graph that a program has left: it may hang, or ask for all memory there is. So it runs in a process of
its own, within limits; the hub itself reads numbers.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud_hub.training.bounded import Call, Limits, Runner, run
from cloud_hub.training.gate import Evidence, Slice
from edgeloop.package import Package
from edgeloop.runtime import ModelSession
from edgeloop.runtime.datatypes import numpy_dtype

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Rows of a run.
BATCH = 64
#: Seconds that a run may take.
DEADLINE_S = 60.0


def measure(
    runner: Runner, *, base: Path, candidate: Path, rows: Path, limits: Limits, stopped: Callable[[], bool]
) -> Evidence:
    """What the gate goes by, of the rows that a program was not given.

    Args:
        runner: where it is measured.
        base: folder of the current release's package.
        candidate: folder of the candidate's.
        rows: the held-out file of a dataset.
        limits: what measuring may take.
        stopped: whether it has to end.

    Raises:
        Cancelled: it had to end.
        TrainingError: the candidate does not run, or exceeds a limit.
    """
    place = candidate.parent / "measuring"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    answer, request = place / "output" / "answer.json", place / "request.json"
    paths = {"base": base, "candidate": candidate, "rows": rows, "answer": answer}
    request.write_text(json.dumps({name: str(path) for name, path in paths.items()}))
    command = [sys.executable, "-P", "-m", "cloud_hub.training.held_out", str(request)]
    call = Call("measuring the candidate", command, place, request, limits)
    run(runner, call, lambda line: None, stopped)
    found = json.loads(answer.read_bytes())
    shutil.rmtree(place)
    return Evidence(
        candidate_error=found["candidate_error"],
        current_error=found["current_error"],
        holdout_labels=found["holdout_labels"],
        candidate_accuracy=found["candidate_accuracy"],
        current_accuracy=found["current_accuracy"],
        classes={name: Slice(**slice_) for name, slice_ in found["classes"].items()},
    )


def main(path: str) -> None:
    """Read a request, ``{"base", "candidate", "rows", "answer"}``, all paths, and write the answer as JSON."""
    request = json.loads(Path(path).read_bytes())
    base, candidate = Package.open(Path(request["base"])), Package.open(Path(request["candidate"]))
    inputs, labels, weights = read_rows(Path(request["rows"]), base)
    answer = compared(probabilities(base, inputs), probabilities(candidate, inputs), labels, weights, base.meta.labels)
    Path(request["answer"]).write_text(json.dumps(answer))


def read_rows(path: Path, package: Package) -> tuple[dict[str, Array], npt.NDArray[np.int64], Floats]:
    """Inputs by name, true classes and weights of a file of a dataset (`cloud_hub.training.dataset`)."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    inputs = {}
    for spec in package.meta.inputs:
        column = table.column(spec.name).combine_chunks()
        flat = column.flatten() if hasattr(column.type, "list_size") else column
        shape = [int(length) for length in spec.shape[1:]]
        if spec.datatype == "BYTES":
            inputs[spec.name] = np.array(flat.to_pylist(), dtype=object).reshape(len(column), *shape)
        else:
            inputs[spec.name] = np.asarray(flat, dtype=numpy_dtype(spec.datatype)).reshape(len(column), *shape)
    labels = np.asarray(table.column("label"), dtype=np.int64)
    return inputs, labels, np.asarray(table.column("weight"), dtype=np.float64)


def probabilities(package: Package, inputs: Mapping[str, Array]) -> list[Floats]:
    """Of each variant that runs on this machine's processor, [N, K].

    Raises:
        SystemExit: none does, or one answers what is no number; the message is the child's last line.
    """
    rows = len(next(iter(inputs.values())))
    found = []
    for name, spec in package.variants.items():
        if spec.device != "cpu":
            continue
        session = ModelSession.load(package, name)
        try:
            names = [output.name for output in session.outputs if output.role in ("probabilities", "logits")]
            parts = []
            for start in range(0, rows, BATCH):
                feed = {key: values[start : start + BATCH] for key, values in inputs.items()}
                answers = dict(zip(names, session.run(feed, names, DEADLINE_S), strict=True))
                parts.append(np.asarray(session.probabilities(answers), dtype=np.float64))
        finally:
            session.close()
        found.append(np.concatenate(parts))
        if not np.isfinite(found[-1]).all():  # the worst of several is not found among what is no number
            raise SystemExit(f"the variant {name} of {package.name} {package.version} answers what is no number")
    if not found:
        raise SystemExit(
            f"no variant of {package.name} {package.version} runs on a processor, which the hub measures on; "
            "build it with one for the CPU"
        )
    return found


def compared(
    current: list[Floats],
    candidate: list[Floats],
    labels: npt.NDArray[np.int64],
    weights: Floats,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """What the gate wants to know; of the worst variant of each.

    The error is Brier's score (1950): the mean over the rows, by weight, of the squared distance between the
    probabilities and the label as a one-hot row.

    Args:
        current: probabilities [N, K] of each variant of the current release.
        candidate: the same of the candidate.
        labels: true classes [N].
        weights: of the rows [N].
        names: of the K classes.

    Returns:
        ``candidate_error``, ``current_error``, ``candidate_accuracy``, ``current_accuracy``, ``holdout_labels`` and
        ``classes``, by name: the candidate's accuracy and the rows.
    """
    worst = max(candidate, key=lambda p: _brier(p, labels, weights))
    right = worst.argmax(axis=1) == labels
    classes = {
        names[k]: {"accuracy": float(np.average(right[rows], weights=weights[rows])), "rows": int(rows.sum())}
        for k in range(len(names))
        if (rows := labels == k).any()
    }
    return {
        "candidate_error": _brier(worst, labels, weights),
        "current_error": max(_brier(p, labels, weights) for p in current),
        "candidate_accuracy": min(_accuracy(p, labels, weights) for p in candidate),
        "current_accuracy": min(_accuracy(p, labels, weights) for p in current),
        "holdout_labels": len(labels),
        "classes": classes,
    }


def _brier(found: Floats, labels: npt.NDArray[np.int64], weights: Floats) -> float:
    truth = np.eye(found.shape[1])[labels]
    return float(np.average(np.square(found - truth).sum(axis=1), weights=weights))


def _accuracy(found: Floats, labels: npt.NDArray[np.int64], weights: Floats) -> float:
    return float(np.average(found.argmax(axis=1) == labels, weights=weights))


if __name__ == "__main__":
    main(sys.argv[1])
