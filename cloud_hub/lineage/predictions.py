"""What a hub knows of one prediction: it gets counts, not answers, but for rows that were escalated or sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, select

from cloud_hub.errors import NotFound
from cloud_hub.records.sample_tables import samples
from cloud_hub.records.tables import devices
from cloud_hub.records.teaching_tables import escalations


@dataclass(frozen=True)
class Sighting:
    """A record of one answer: the device that gave it, the release that made it, and what the record is.

    Attributes:
        device: the device's name.
        channel: that it followed.
        release: digest of the release that answered.
        index: row in the request.
        at: unix seconds at which the hub got to know of it.
        record: ``escalation`` or ``sample``.
        facts: what else is known, plain.
    """

    device: str
    channel: str
    release: str
    index: int
    at: float
    record: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Answered:
    """A prediction, as far as the hub knows of it.

    Attributes:
        id: as it was asked for.
        sightings: what the hub has of it, oldest first.
        unknown: what it cannot know, and who may: sentences for a person.
    """

    id: str
    sightings: Sequence[Sighting]
    unknown: Sequence[str]


def escalated(connection: Connection, prediction: str) -> list[Sighting]:
    """Rows of a prediction that were escalated, as long as their records are kept."""
    names = ("state", "predicted", "confidence", "label", "teacher", "probability", "audit", "cost")
    return _seen(connection, escalations, prediction, "escalation", names)


def sampled(connection: Connection, prediction: str) -> list[Sighting]:
    """Rows of a prediction whose inputs are kept for retraining."""
    names = ("number", "strategy", "probability", "predicted", "confidence", "label", "source")
    return _seen(connection, samples, prediction, "sample", names)


def _seen(connection: Connection, table: Table, prediction: str, kind: str, names: Sequence[str]) -> list[Sighting]:
    query = select(table).where(table.c.prediction == prediction).order_by(table.c.row)
    return [
        Sighting(
            row.device,
            row.channel,
            row.release,
            row.row,
            row.received,
            kind,
            {name: getattr(row, name) for name in names},
        )
        for row in connection.execute(query)
    ]


#: Looks for records of a prediction's id.
Finder = Callable[[Connection, str], Sequence[Sighting]]
#: Every part that keeps an answer beside its prediction's id.
FINDERS: tuple[Finder, ...] = (escalated, sampled)


def answered(connection: Connection, prediction: str, device: str | None) -> Answered:
    """What is known of a prediction.

    Args:
        connection: to the records.
        prediction: its id.
        device: that gave it, where it is known.

    Raises:
        NotFound: there is no such device, or no record of the prediction and no device is named.
    """
    seen = [sighting for finder in FINDERS for sighting in finder(connection, prediction)]
    seen = sorted((one for one in seen if device in (None, one.device)), key=lambda one: (one.at, one.index))
    unknown = []
    if device is not None and not seen:
        row = connection.execute(select(devices.c.release, devices.c.reported_at).where(devices.c.device == device))
        if (found := row.first()) is None:
            raise NotFound(f"there is no device {device[:80]!r}", "GET /api/v1/devices lists them")
        unknown.append(
            f"this hub has no record of {prediction[:80]!r}: {device} runs {found.release or 'nothing'} now, and may "
            "have run another release then"
        )
    elif not seen:
        raise NotFound(
            f"{prediction[:80]!r} is no release, and no prediction that this hub has a record of",
            "a hub gets counts, not answers: it knows those that were escalated or sampled; the device that answered "
            "names the release of its latest ones at GET /edgeloop/v1/predictions/ID",
        )
    if len({(one.device, one.release) for one in seen}) > 1:
        unknown.append("clients have used this id more than once: several devices or releases have answered it")
    if not seen:
        unknown.append(f"{device} itself names the release of its latest answers: GET /edgeloop/v1/predictions/ID")
    return Answered(prediction, seen, unknown)
