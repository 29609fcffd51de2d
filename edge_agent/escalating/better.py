"""Outputs of a model with the teacher's answer in them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.records import dataclass

Array = npt.NDArray[Any]

#: A class that has more than this of the probability is the one that a client reads off the scores.
LEAST = 0.501
_TINY = 1e-12


@dataclass(frozen=True)
class Better:
    """The teacher's answer to one row.

    Attributes:
        label: class index.
        confidence: of the teacher, or None where it gives none.
        teacher: its name.
        outvoted: whether the edge's answer stands all the same: `edgeloop.cascade.combining`.
    """

    label: int
    confidence: float | None
    teacher: str
    outvoted: bool = False


def class_of(label: int | str, names: Sequence[str], classes: int) -> int | None:
    """The class index that a label means, or None: it is no class of this model."""
    if isinstance(label, str):
        return names.index(label) if label in names else None
    return label if 0 <= label < classes else None


def with_answers(
    outputs: Sequence[tuple[str, Array]],
    roles: Mapping[str, str],
    names: Sequence[str],
    better: Mapping[int, Better],
) -> tuple[tuple[str, Array], ...]:
    """A request's outputs with the teacher's answers in place of the edge's.

    Labels are the teacher's. Of scores its class gets its confidence, and the others share the rest as the edge had
    it; but it always gets more than half, so that whoever reads a class off the scores reads the teacher's.

    Args:
        outputs: name and array, [N, …] each; not changed.
        roles: name → role of the output.
        names: of the classes.
        better: row → answer, of those that are not outvoted.
    """
    return tuple((name, _changed(array, roles.get(name, "other"), names, better)) for name, array in outputs)


def _changed(array: Array, role: str, names: Sequence[str], better: Mapping[int, Better]) -> Array:
    if role not in ("label", "probabilities", "logits"):
        return array
    changed = array.copy()
    for row, answer in better.items():
        if role == "label":
            changed[row] = answer.label if array.dtype.kind in "iuf" else _name(answer.label, names)
        elif role == "probabilities":
            changed[row] = _scores(array[row], answer)
        else:
            logits = array[row].astype(np.float64)
            exp = np.exp(logits - logits.max())
            changed[row] = np.log(np.maximum(_scores(exp / exp.sum(), answer), _TINY))
    return changed


def _scores(row: Array, answer: Better) -> Array:
    scores = row.astype(np.float64)
    sure = 1.0 if answer.confidence is None else max(answer.confidence, LEAST)
    scores[answer.label] = 0.0
    rest = scores.sum()
    scores *= (1 - sure) / rest if rest > 0 else 0.0
    scores[answer.label] = sure
    return scores


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else str(label)
