"""Whether a converted model gives what its source gives, on data, output by output.

It comes before anything else is done with the graph: what differs here would differ in every variant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from model_export.data import Table, bind, spread
from model_export.errors import SourceError
from model_export.graphs.canonical import inputs_of
from model_export.graphs.graph import Array
from model_export.graphs.probe import Probe
from model_export.sources.model import Reference, Source

#: Rows of the data that are compared, at most.
ROWS = 512
#: A row agrees where no number of it differs by more than this share of the largest number in the output.
TOLERANCE = 1e-3
#: Share of the rows, and of the decisions, that have to agree. Trees compare each number with thresholds that the
#: source has in float64 and the graph in float32, so a number beside a threshold may take the other branch.
SHARE: Mapping[str, float] = {"sklearn": 0.99, "xgboost": 0.99, "lightgbm": 0.99}
EVERY_ROW = 1.0


@dataclass(frozen=True)
class OutputParity:
    """How one output of the converted model stands to the source's.

    Attributes:
        worst_absolute: largest difference of two numbers; None where the output is no number.
        worst_relative: the same as a share of the largest number in the output.
        agreeing_rows: share of the rows within `TOLERANCE`.
        equal_decisions: share of the rows whose best column, or whose one value, is the same; None for others.
    """

    worst_absolute: float | None
    worst_relative: float | None
    agreeing_rows: float
    equal_decisions: float | None


@dataclass(frozen=True)
class Parity:
    """How a converted model stands to its source.

    Attributes:
        how: what converted it.
        rows: that were compared.
        outputs: of those outputs that the source gives as well, by name.
    """

    how: str
    rows: int
    outputs: Mapping[str, OutputParity]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def refused(self, share: float) -> str:
        """Why it is not the same model; empty where it is.

        Args:
            share: of rows, and of decisions, that have to agree.
        """
        for name, found in self.outputs.items():
            agreeing = min(found.agreeing_rows, 1.0 if found.equal_decisions is None else found.equal_decisions)
            if agreeing < share:
                worst = "" if found.worst_absolute is None else f", at worst by {found.worst_absolute:.3g}"
                return f"output {name} differs from the source's in {1 - agreeing:.1%} of {self.rows} rows{worst}"
        return "" if self.outputs else "none of its outputs is one of the source's"


def check(source: Source, table: Table) -> Parity | None:
    """Compare a source with what it was converted to; None where nothing was converted.

    Raises:
        SourceError: they differ by more than is tolerated.
        DataError: the data do not fit the model.
    """
    if source.reference is None:
        return None
    found = compare(source.model, source.reference, rows_of(source.model, table), source.how)
    if reason := found.refused(SHARE.get(source.kind, EVERY_ROW)):
        raise SourceError(
            f"what {source.how} made of {source.file or source.name} is another model: {reason}",
            f"check with another version of {source.how}, or export to ONNX yourself and give the .onnx file",
        )
    return found


def rows_of(model: ModelProto, table: Table) -> dict[str, Array]:
    """The rows that are compared, by input; raises DataError where the data do not fit."""
    return spread(bind(table, inputs_of(model)), ROWS)


def compare(model: ModelProto, reference: Reference, rows: Mapping[str, Array], how: str) -> Parity:
    """The outputs of both on the same rows [N, …].

    Raises:
        UnsupportedModelError: the converted model does not run.
    """
    expected, got = reference(rows), Probe(model).run(rows)
    count = len(next(iter(rows.values())))
    outputs = {name: _output(expected[name], array) for name, array in got.items() if name in expected}
    return Parity(how, count, outputs)


def _output(expected: Array, got: Array) -> OutputParity:
    if got.ndim == 2 and got.shape[1] == 1 and expected.ndim == 1:
        got = got[:, 0]
    if expected.ndim == 1 and got.ndim == 2 and got.shape[1] == 2 and got.dtype.kind == "f":
        # Of two classes scikit-learn gives the second's score alone.
        got = got[:, 1]
    if expected.shape != got.shape:
        return OutputParity(None, None, 0.0, None)
    # ONNX has no classes True and False: they are 1 and 0 there.
    if expected.dtype.kind not in "fiub" or got.dtype.kind not in "fiub":
        equal = float((_texts(expected) == _texts(got)).mean())
        return OutputParity(None, None, equal, equal)
    one, other = expected.astype(np.float64), got.astype(np.float64)
    # Infinities of the same sign are equal; a NaN is never.
    with np.errstate(invalid="ignore"):
        difference = np.where(one == other, 0.0, np.abs(one - other)).reshape(len(one), -1)
    difference[np.isnan(difference)] = np.inf
    largest = max(float(np.max(np.abs(one[np.isfinite(one)]), initial=0.0)), float(np.finfo(np.float32).tiny))
    agreeing = float((difference.max(axis=1, initial=0.0) <= TOLERANCE * largest).mean())
    worst = float(difference.max(initial=0.0))
    return OutputParity(worst, worst / largest, agreeing, _decisions(one, other, difference, TOLERANCE * largest))


def _decisions(one: Array, other: Array, difference: Array, tolerance: float) -> float | None:
    if one.ndim == 1:
        return float((difference[:, 0] <= tolerance).mean())
    if one.ndim != 2 or one.shape[1] < 2:
        return None
    best = other.argmax(axis=1)
    lead = one.max(axis=1) - np.take_along_axis(one, best[:, None], axis=1)[:, 0]
    # Two columns that the source holds for equal, up to the tolerance, may be told apart in either way.
    return float((lead <= 2 * tolerance).mean())


def _texts(array: Array) -> Array:
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in array.ravel().tolist()]).reshape(
        array.shape
    )
