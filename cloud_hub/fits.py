"""The records of fitted thresholds: for each release on a channel one, and for which policy it was fitted."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from cloud_hub.policy import ChannelPolicy
from cloud_hub.records.database import add_rows
from cloud_hub.records.teaching_tables import fitted_thresholds as table

#: What a fit is of.
VALIDATION, ANSWERS, NOTHING = "validation", "answers", "nothing"
#: Fields of the escalation policy that a fit depends on.
_DEPENDS_ON = ("mode", "travels", "signals", "threshold", "softness", "floor", "max_share", "max_weight")
_KEYS = ("channel", "release")


@dataclass(frozen=True)
class Fit:
    """A threshold that was fitted, or why none was.

    Attributes:
        channel: its name.
        release: digest.
        recipe: what it depends on of the channel's policy, JSON.
        threshold: hardness in 0…1, or None: the policy's own stands.
        source: what it was fitted to: ``validation``: the package's validation set; ``answers``: the teacher's;
            ``nothing``: there is neither.
        share: of the predictions that is expected to be escalated, or None where nothing is known.
        accuracy: that is expected of what clients get, or None.
        teacher: whose accuracy is in it, or whose answers; "" where no teacher was asked.
        teacher_accuracy: of that teacher on the validation set, or None: it is not known, and taken for 1.
        rows: that it was fitted to.
        effective: rows of weight 1 that would tell as much.
        reason: what was done and why, a sentence.
        since: unix seconds of the first fit by this recipe; answers that came before are not looked at.
        fitted: unix seconds at which the threshold was last chosen anew.
        looked: unix seconds of the last look.
        curve: (share, accuracy) of other thresholds.
    """

    channel: str
    release: str
    recipe: str
    threshold: float | None
    source: str
    share: float | None
    accuracy: float | None
    teacher: str
    teacher_accuracy: float | None
    rows: int
    effective: float
    reason: str
    since: float
    fitted: float
    looked: float
    curve: tuple[tuple[float, float], ...] = ()


def recipe_of(policy: ChannelPolicy) -> str:
    """What the fits of a channel depend on: two policies with the same one have the same fits."""
    target = policy.escalation.target
    how = policy.escalation.model_dump(mode="json", include=set(_DEPENDS_ON))
    wanted = None if target is None else target.model_dump(mode="json", exclude={"refit_s"})
    return json.dumps({**how, "target": wanted, "teachers": policy.teaching.teachers}, sort_keys=True)


def find(connection: Connection, channel: str, release: str) -> Fit | None:
    """The fit of a release on a channel, of whatever policy; or None."""
    row = connection.execute(select(table).where(table.c.channel == channel, table.c.release == release)).first()
    return None if row is None else _fit(row)


def on(connection: Connection, channel: str, policy: ChannelPolicy) -> list[Fit]:
    """The fits of a channel by its present policy; none where it has no target."""
    if policy.escalation.target is None:
        return []
    query = select(table).where(table.c.channel == channel, table.c.recipe_json == recipe_of(policy))
    return [_fit(row) for row in connection.execute(query.order_by(table.c.since.desc()))]


def thresholds(connection: Connection, channel: str, policy: ChannelPolicy) -> Mapping[str, float]:
    """Digest of a release → threshold that was fitted to it by the channel's present policy."""
    return {fit.release: fit.threshold for fit in on(connection, channel, policy) if fit.threshold is not None}


def write(connection: Connection, fit: Fit, in_use: Collection[str]) -> None:
    """Put a fit in place of the one before, and forget those of releases that are not in use any more."""
    values = {field.name: getattr(fit, field.name) for field in fields(fit) if field.name not in ("recipe", "curve")}
    values |= {"recipe_json": fit.recipe, "curve_json": json.dumps(fit.curve)}
    names = list(values)
    replaced = [name for name in names if name not in _KEYS]
    add_rows(connection, table, names, [[values[name] for name in names]], replaced=replaced)
    connection.execute(delete(table).where(table.c.channel == fit.channel, table.c.release.not_in(in_use)))


def _fit(row: Row[Any]) -> Fit:
    values = dict(row._mapping)
    curve = tuple((share, accuracy) for share, accuracy in json.loads(values.pop("curve_json")))
    return Fit(recipe=values.pop("recipe_json"), curve=curve, **values)
