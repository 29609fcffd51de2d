"""Which of two answers a client is given: a teacher is better than a device, and not always right."""

from __future__ import annotations

#: How many times the teacher's odds the device's have to be before its answer stands against the teacher's: a device
#: may be wrong of its hardness, in a new world above all. docs/decisions/cascade-whose-answer.md has what was compared.
EVIDENCE = 3.0


def better(predicted: int, hardness: float, label: int, confidence: float | None) -> int:
    """The class to answer.

    The device is right with the chance 1 - h, the teacher with its confidence c; where they differ at most one is. The
    device's answer stands where (1 - h) / h > `EVIDENCE` · c / (1 - c).

    Args:
        predicted: the device's class.
        hardness: of the row, 0…1: `Draw.hardness`.
        label: the teacher's class.
        confidence: of the teacher, 0…1, calibrated; None: it tells none of that kind, and is believed.
    """
    if confidence is None or (1 - hardness) * (1 - confidence) <= EVIDENCE * hardness * confidence:
        return label
    return predicted


def standing(hardness: float, confidence: float) -> float:
    """Chance that the device's answer is the right one, where the two differ and one of them is right.

    Args:
        hardness: of the row, 0…1.
        confidence: of the teacher, 0…1, calibrated.
    """
    device, teacher = (1 - hardness) * (1 - confidence), hardness * confidence
    return device / (device + teacher) if device + teacher > 0 else 0.5
