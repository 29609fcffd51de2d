"""The temperature that makes a model say how often it is right: one number, fitted on labelled rows.

Guo et al., On Calibration of Modern Neural Networks (2017), section 4.2: scores are divided by the number that makes
the negative log-likelihood of held-out rows least. Decisions stay what they were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import Array
from model_export.graphs.measure import softmax
from model_export.graphs.probe import Probe
from model_export.prepare import Prepared
from model_export.report.scores import reliability

#: Between these it is looked for. Rows that are all decided right would make a model as sure as can be, which says
#: nothing of others.
LEAST, MOST = 0.2, 20.0
#: Digits that are kept: what more there are depend on the processor, and so would the package's digest.
DIGITS = 3
#: The least probability whose logarithm is taken.
_TINY = 1e-30
Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """What was fitted, and what it is worth on rows that it was not fitted on.

    Attributes:
        temperature: that scores are divided by; 1 where the fitted one made the others no likelier.
        fitted: by the calibration rows.
        rows: that it was fitted on.
        judged_on: validation rows of the figures below.
        nll_before, nll_after: negative log-likelihood a row, with a temperature of 1 and with the fitted one.
        ece_before, ece_after: expected calibration error, likewise.
    """

    temperature: float
    fitted: float
    rows: int
    judged_on: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float

    def as_dict(self) -> dict[str, Any]:
        """For reports and the lineage."""
        return asdict(self)

    def told(self) -> str:
        """One line for people."""
        figures = (
            f"on {self.judged_on} validation rows the calibration error is {self.ece_before:.3f} without it and "
            f"{self.ece_after:.3f} with it, the negative log-likelihood {self.nll_before:.3f} and {self.nll_after:.3f}"
        )
        if self.temperature != self.fitted:
            return f"no temperature: {self.fitted:g}, fitted on {self.rows} rows, is no better; {figures}"
        return f"temperature {self.temperature:g}, fitted on {self.rows} rows: {figures}"


def fit(prepared: Prepared, calibration: Array, validation: Array) -> Fitted:
    """Fit a temperature on the calibration rows, and keep it where it is better on the validation rows too.

    Args:
        prepared: the float model, whose scores nothing has divided yet.
        calibration: row numbers that it is fitted on.
        validation: row numbers that it is judged on.

    Raises:
        UnsupportedModelError: its scores are probabilities without a last layer that is known.
    """
    if prepared.roles[prepared.scores] == "probabilities" and prepared.head is None:
        raise UnsupportedModelError(
            "no temperature can be put into this model: its last layer is not known",
            "leave --fit-temperature out, or export the model's logits",
        )
    some, truth = _scores(prepared, calibration)
    found = float(f"{least_nll(some, truth):.{DIGITS}g}")
    scores, true = _scores(prepared, validation)
    before, after = (nll(scores, true, temperature) for temperature in (1.0, found))
    ece = [reliability(softmax(scores / temperature), true)[1] for temperature in (1.0, found)]
    figures = (round(figure, 4) for figure in (before, after, *ece))
    return Fitted(found if after < before else 1.0, found, len(truth), len(true), *figures)


def nll(scores: Scores, truth: Labels, temperature: float) -> float:
    """Mean negative log-likelihood of the true classes.

    Args:
        scores: [N, K], logits or logarithms of probabilities.
        truth: true classes [N].
        temperature: that scores are divided by.
    """
    chances = softmax(scores / temperature)[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chances, _TINY)).mean())


def least_nll(scores: Scores, truth: Labels) -> float:
    """The temperature in `LEAST` to `MOST` with the least `nll`: that is convex in its inverse, so its slope is halved.

    Args:
        scores: [N, K].
        truth: true classes [N].
    """
    true = scores[np.arange(len(truth)), truth]

    def slope(temperature: float) -> float:
        """Of the NLL by the inverse of the temperature; it grows with the inverse."""
        return float(((softmax(scores / temperature) * scores).sum(axis=1) - true).mean())

    low, high = LEAST, MOST
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.sqrt(low * high)


def _scores(prepared: Prepared, chosen: Array) -> tuple[Scores, Labels]:
    """Logits, or logarithms of the probabilities, which are logits but for a number a row."""
    rows, truth = prepared.part(chosen)
    found: Mapping[str, Array] = Probe(prepared.model).run(rows)
    scores = found[prepared.scores].astype(np.float64)
    if prepared.roles[prepared.scores] == "probabilities":
        scores = np.log(np.maximum(scores, _TINY))
    return scores, truth
