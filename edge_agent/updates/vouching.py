"""Which of the releases that are vouched for this device takes. Pure: what is known in, a reason or the floors out.

The floor of a model is the order of the release that was committed before the one that is now: going back one step
stays possible, and nothing older comes ever again, whoever signs that it is current.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edge_agent.ports import Vouched
from edgeloop.protocol import ProtocolError
from edgeloop.trust.names import Order, ReleasePath, parse_release

Floors = Mapping[str, Order]
"""Model → order below which no release of it is taken."""


def objection(vouched: Vouched, floors: Floors, committed: str, models: Collection[str]) -> str:
    """Why a release is not taken although somebody vouches for it; or "".

    Args:
        vouched: who does.
        floors: of this device.
        committed: path of the committed release, or "" when nothing signed is committed.
        models: that the device's owner allows; empty: the one that it runs.
    """
    if vouched.order is None:
        return ""
    runs = model_of(committed)
    allowed = models or ([runs] if runs else [])
    if allowed and vouched.model not in allowed:
        return (
            f"it is a release of {vouched.model}, and this device runs {' and '.join(allowed)}; its owner may allow it "
            "(models)"
        )
    floor = floors.get(vouched.model)
    if floor is not None and vouched.order < floor:
        return f"it is older than what this device has run: {_name(vouched.order)} comes before {_name(floor)}"
    return ""


def raised(floors: Floors, before: str, new: str) -> dict[str, Order]:
    """The floors after a commit.

    Args:
        floors: before it.
        before: path of the release that was committed until now, or "".
        new: path of the release that is committed, or "".
    """
    old, now = _path(before), _path(new)
    if old is None or now is None or old.model != now.model:
        return dict(floors)
    step = min(old.order, now.order)
    return {**floors, now.model: max(step, floors.get(now.model, step))}


def model_of(target: str) -> str:
    """The model of a release's path; "" where there is none."""
    path = _path(target)
    return path.model if path is not None else ""


def _path(target: str) -> ReleasePath | None:
    try:
        return parse_release(target) if target else None
    except ProtocolError:
        return None


def _name(order: Order) -> str:
    return f"{order[0]}, revision {order[1]}," if order[1] else f"{order[0]}"
