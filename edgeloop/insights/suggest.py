"""What to look at first, as a sentence: from which aspects moved, and where (a table in docs/explanations/drift.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgeloop.insights.drift import DOWN, AspectDrift
from edgeloop.insights.summaries import MAX_COLUMNS

Scope = Literal["fleet", "devices", "segments", "device"]

SENSOR = "only {column} moved among the inputs: check the sensor, the wiring and the unit behind it"
PLACES = (
    "the others look as ever: look at the camera or sensor of {names} (light, lens, mounting, dirt) before anything is "
    "retrained"
)
MIX_OF_CLASSES = (
    "the inputs look as ever and another mix of classes is predicted: see whether that is so in the world; the model "
    "need not be retrained for it"
)
LESS_SURE = (
    "the model is less sure of inputs that look as ever: label some of its unsure answers, and compare with the "
    "release before it"
)
MORE_SURE = (
    "the model's confidence changed and the inputs did not: see what was released or which provider runs since then"
)
UNSEEN = (
    "what the model makes of its inputs changed and their plain statistics did not (turned, blurred, other objects): "
    "look at some of them, label them, and retrain if it stays"
)
WORLD = (
    "everywhere at once: the world changed, or something in front of the model did (a release, a firmware, a step of "
    "preparation); see what was changed then, and if it stays, label and retrain"
)
HERE = (
    "look at this device's camera or sensor (light, lens, mounting, dirt); the hub says whether other devices saw the "
    "same"
)


def suggest(moved: Sequence[AspectDrift], *, scope: Scope, names: Sequence[str] = (), input_width: int = 0) -> str:
    """What somebody should look at first.

    Args:
        moved: the aspects that drifted.
        scope: where: the whole fleet, some devices or segments of it, or one device that speaks of itself.
        names: of those devices or segments.
        input_width: numbers in a row of the input: up to 16 are columns of a table.
    """
    found = {aspect.name.split("[")[0] for aspect in moved}
    inputs = [aspect for aspect in moved if aspect.name.startswith("inputs[")]
    if len(inputs) == 1 and 0 < input_width <= MAX_COLUMNS:
        sensor = SENSOR.format(column=inputs[0].moved.split(":")[0])
        return f"{sensor}, on {_listed(names)}" if names else sensor
    if scope in ("devices", "segments"):
        return PLACES.format(names=_listed(names))
    if found <= {"classes"}:
        return MIX_OF_CLASSES
    if found <= {"classes", "confidence", "entropy"}:
        less = any(aspect.name == "confidence" and aspect.direction == DOWN for aspect in moved)
        return LESS_SURE if less else MORE_SURE
    if not found & {"inputs", "images", "texts"}:
        return UNSEEN
    return HERE if scope == "device" else WORLD


def _listed(names: Sequence[str]) -> str:
    told = ", ".join(names[:5])
    return told if len(names) <= 5 else f"{told} and {len(names) - 5} more"
