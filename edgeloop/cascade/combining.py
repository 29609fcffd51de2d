"""Which of two answers a client is given: a teacher is better than a device, and not always right."""

from __future__ import annotations

#: How many times more likely the device has to be right before its answer stands against the teacher's. A device that
#: was wrong of its hardness then costs next to nothing in a new world, where its teacher mostly is right: measured by
#: ``benchmarks/cascade``, where 3 gains 0.001 more in the old world and loses 0.002 in the new.
EVIDENCE = 10.0


def better(predicted: int, hardness: float, label: int, confidence: float | None) -> int:
    """The class to answer.

    The device is right with the chance 1 - h, the teacher with its confidence c; where they differ at most one is. The
    device's answer stands where (1 - h) / h > `EVIDENCE` · c / (1 - c).

    Args:
        predicted: the device's class.
        hardness: of the row, 0…1: `Draw.hardness`.
        label: the teacher's class.
        confidence: of the teacher, 0…1; None: it tells none, and is believed.
    """
    if confidence is None or (1 - hardness) * (1 - confidence) <= EVIDENCE * hardness * confidence:
        return label
    return predicted
