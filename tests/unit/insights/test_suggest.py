"""From what moved, and where, to what somebody should look at."""

from __future__ import annotations

import pytest

from edgeloop.insights.drift import AspectDrift
from edgeloop.insights.suggest import Scope, suggest


def moved(*names: str) -> list[AspectDrift]:
    return [
        AspectDrift(
            name.rstrip("-+"), 9.0, 1.0, 1e-9, 0.5, "down" if name.endswith("-") else "up", True, f"{name}: moved"
        )
        for name in names
    ]


@pytest.mark.parametrize(
    ("aspects", "scope", "names", "width", "told"),
    [
        (("inputs[3]",), "fleet", (), 16, "only inputs[3] moved among the inputs: check the sensor"),
        (
            ("inputs[3]", "projections[1]", "classes"),
            "devices",
            ("a",),
            16,
            "sensor, the wiring and the unit behind it, on a",
        ),
        (("inputs[0]", "inputs[1]"), "fleet", (), 16, "everywhere at once"),
        (("inputs[0]",), "fleet", (), 64, "everywhere at once"),
        (("inputs[0]", "classes"), "devices", tuple("abcdefg"), 64, "camera or sensor of a, b, c, d, e and 2 more"),
        (("projections[0]",), "segments", ("night",), 64, "camera or sensor of night"),
        (("classes",), "fleet", (), 64, "another mix of classes"),
        (("confidence-",), "fleet", (), 64, "less sure of inputs that look as ever"),
        (("confidence+", "classes"), "fleet", (), 64, "see what was released"),
        (("projections[0]", "features", "confidence-"), "fleet", (), 64, "turned, blurred, other objects"),
        (("inputs[0]", "projections[1]"), "device", (), 64, "this device's camera"),
    ],
)
def test_what_to_look_at(aspects: tuple[str, ...], scope: Scope, names: tuple[str, ...], width: int, told: str) -> None:
    assert told in suggest(moved(*aspects), scope=scope, names=names, input_width=width)
