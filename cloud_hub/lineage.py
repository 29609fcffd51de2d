"""Where a release comes from and what came of it: one chain, read from what every part of the hub has written down.

Nothing is recorded for a lineage alone. A release names its base, and the run that made it; a run its alarm, its data
and what the gate said; a rollout its steps and approvals; the audit log who did what. So the chain is as true as those.
It is read in one transaction, with or without a hub that runs on the records.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select

from cloud_hub import alarms, releases
from cloud_hub.alarms import Alarm
from cloud_hub.attestations import place
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.records.access_tables import audit_log
from cloud_hub.records.database import Database
from cloud_hub.records.sample_tables import samples
from cloud_hub.records.tables import channels, devices
from cloud_hub.records.teaching_tables import escalations
from cloud_hub.releases import Release
from cloud_hub.rollouts import approvals
from cloud_hub.rollouts import records as rollouts
from cloud_hub.rollouts.approvals import Approval
from cloud_hub.rollouts.records import HistoryEntry, Rollout
from cloud_hub.training import run_records as runs
from cloud_hub.training.run_records import Run
from cloud_hub.trust.online import path_of, signers_of
from edgeloop.provenance import ProvenanceError, parse, read

#: Ancestors and successors that are looked at, each: a loop that closes daily for three years.
MOST_RELEASES = 1_000
#: Hex digits by which a release may be named, at least.
LEAST_DIGITS = 8
_DIGEST = re.compile(rf"(?:sha256:)?([0-9a-f]{{{LEAST_DIGITS},64}})")


@dataclass(frozen=True)
class Signed:
    """Who answers for a release to devices.

    Attributes:
        path: in the fleet's signed metadata.
        keys: ids of the keys that have signed the role which names it.
    """

    path: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """What the provenance beside a release says of how it was made.

    Attributes:
        builder: ``model-export`` or ``cloud-hub``.
        keys: ids of the keys that have signed it; none in a fleet without signatures.
        materials: name → SHA-256 of what it was made of.
    """

    builder: str
    keys: tuple[str, ...]
    materials: Mapping[str, str]


@dataclass(frozen=True)
class Assigned:
    """A release became a channel's current one.

    Attributes:
        channel: its name.
        at: unix seconds.
        who: as the audit log names them.
        entry: number of the entry in the audit log.
    """

    channel: str
    at: float
    who: str
    entry: int


@dataclass(frozen=True)
class Journey:
    """A rollout, who agreed to it, and every decision."""

    rollout: Rollout
    approvals: Sequence[Approval]
    history: Sequence[HistoryEntry]


@dataclass(frozen=True)
class Link:
    """A release in the chain, and how it came to be and to spread.

    Attributes:
        release: the release.
        signed: who answers for it, or None: nobody, or no longer.
        made: how it was made, or None where nobody has said.
        run: the training run that made it, or None for one that was published.
        alarm: the drift alarm that the run answers, or None.
        rollouts: its rollouts, oldest first.
        assigned: when it became current on a channel, oldest first.
    """

    release: Release
    signed: Signed | None
    made: Made | None
    run: Run | None
    alarm: Alarm | None
    rollouts: Sequence[Journey]
    assigned: Sequence[Assigned]


@dataclass(frozen=True)
class Use:
    """A channel that has to do with the release now: it is ``current``, ``previous`` or ``candidate`` there."""

    channel: str
    role: str


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


@dataclass(frozen=True)
class Lineage:
    """The chain.

    Attributes:
        asked: what was asked for.
        prediction: where a prediction was asked for.
        chain: the release, its base, and so on to the first one; none where the release is not known.
        successors: releases that were made from it, and from those, nearest first.
        uses: channels that have it now.
        devices: how many devices reported last that they run it.
        unknown: what the hub cannot know: sentences for a person.
    """

    asked: str
    prediction: Answered | None
    chain: Sequence[Link]
    successors: Sequence[Release]
    uses: Sequence[Use]
    devices: int
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


class Lineages:
    """Tells lineages.

    Args:
        db: the records.
        attestations: folder of the releases' attestations.
    """

    def __init__(self, db: Database, attestations: Path) -> None:
        self._db, self._attestations = db, attestations

    def of(self, reference: str, device: str | None = None) -> Lineage:
        """The chain of a release or of a prediction.

        Args:
            reference: a release's digest, or its first 8 digits or more; or the id of a prediction.
            device: that gave the prediction, where it is known.

        Raises:
            NotFound: there is no such release or device, and no record of such a prediction.
            BadRequest: several releases begin with these digits.
        """
        with self._db.read() as connection:
            known = releases.every(connection)
            release = _meant(reference, known)
            if release is not None:
                return self._trace(connection, reference, release, known, None)
            answered = _answered(connection, reference, device)
            named = {sighting.release for sighting in answered.sightings}
            found = next((each for each in known if each.digest in named), None) if len(named) == 1 else None
            if found is None:
                return Lineage(reference, answered, (), (), (), 0, answered.unknown)
            return self._trace(connection, reference, found, known, answered)

    def _trace(
        self, connection: Connection, asked: str, release: Release, known: Sequence[Release], answered: Answered | None
    ) -> Lineage:
        by_digest = {each.digest: each for each in known}
        chain = [self._link(connection, each) for each in _ancestors(release, by_digest)]
        oldest = chain[-1].release
        unknown = list(() if answered is None else answered.unknown)
        if oldest.parent is not None and oldest.parent not in by_digest:
            unknown.append(f"this hub does not have {oldest.parent}, of which {oldest.name} {oldest.version} was made")
        query = select(devices.c.device).where(devices.c.release == release.digest)
        number = len(connection.execute(query).all())
        successors = tuple(_successors(release, known))
        return Lineage(asked, answered, chain, successors, _uses(connection, release), number, unknown)

    def _link(self, connection: Connection, release: Release) -> Link:
        path = path_of(connection, release.ref)
        run = _run_of(connection, release)
        return Link(
            release,
            None if path is None else Signed(path, signers_of(connection, path)),
            self._made(release),
            run,
            None if run is None or run.alarm is None else alarms.find(connection, run.alarm),
            [
                Journey(each, approvals.given(connection, each.id), rollouts.history(connection, each.id))
                for each in rollouts.of_release(connection, release.digest)
            ],
            _assigned(connection, release),
        )

    def _made(self, release: Release) -> Made | None:
        try:
            envelope = read(place(self._attestations, release.digest, "provenance").read_bytes())
            said = parse(envelope.payload)
        except (OSError, ProvenanceError):
            return None
        return Made(said.builder, tuple(sorted(envelope.signatures)), said.materials)


def plain(lineage: Lineage) -> dict[str, Any]:
    """As JSON values, which the API answers and the command prints."""
    return {
        "asked": lineage.asked,
        "prediction": None if lineage.prediction is None else asdict(lineage.prediction),
        "chain": [_plain_link(link) for link in lineage.chain],
        "successors": [_plain_release(release) for release in lineage.successors],
        "uses": [asdict(use) for use in lineage.uses],
        "devices": lineage.devices,
        "unknown": list(lineage.unknown),
    }


def _meant(reference: str, known: Sequence[Release]) -> Release | None:
    """The release that is meant, or None: it may be a prediction's id."""
    if (digits := _DIGEST.fullmatch(reference)) is None:
        return None
    found = [release for release in known if release.digest.startswith(f"sha256:{digits[1]}")]
    if len(found) > 1:
        raise BadRequest(f"{len(found)} releases begin with {digits[1]}", "give more of its digits")
    if not found and reference.startswith("sha256:"):
        raise NotFound(f"there is no release {reference}", "GET /api/v1/releases lists them")
    return found[0] if found else None


def _answered(connection: Connection, prediction: str, device: str | None) -> Answered:
    """What is known of a prediction."""
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


def _ancestors(release: Release, known: Mapping[str, Release]) -> Iterator[Release]:
    """The release, its base, and so on; a hub that was lied to may know a circle."""
    seen = set[str]()
    at: Release | None = release
    while at is not None and at.digest not in seen and len(seen) < MOST_RELEASES:
        seen.add(at.digest)
        yield at
        at = None if at.parent is None else known.get(at.parent)


def _successors(release: Release, known: Sequence[Release]) -> Iterator[Release]:
    """What was made from it, nearest first."""
    made: dict[str | None, list[Release]] = {}
    for each in reversed(known):
        made.setdefault(each.parent, []).append(each)
    waiting, seen = deque([release.digest]), {release.digest}
    while waiting and len(seen) <= MOST_RELEASES:
        for each in made.get(waiting.popleft(), ()):
            if each.digest not in seen:
                seen.add(each.digest)
                waiting.append(each.digest)
                yield each


def _run_of(connection: Connection, release: Release) -> Run | None:
    """The run that made it here: another hub, from which it was copied, numbers its runs itself."""
    number = release.lineage.get("run")
    run = runs.find(connection, number) if isinstance(number, int) else None
    return run if run is not None and run.release == release.digest else None


def _assigned(connection: Connection, release: Release) -> list[Assigned]:
    """When it became current, from the audit log: a first release needs no rollout."""
    table = audit_log.c
    current = f'"current":"{release.digest}"'
    query = select(audit_log).where(table.what == "channel.release", table.after_json.contains(current))
    return [
        Assigned(row.about, row.at, row.who, row.number) for row in connection.execute(query.order_by(table.number))
    ]


def _uses(connection: Connection, release: Release) -> list[Use]:
    return [
        Use(row.name, role)
        for row in connection.execute(select(channels).order_by(channels.c.name))
        for role in ("current", "candidate", "previous")
        if getattr(row, role) == release.digest
    ]


def _plain_release(release: Release) -> dict[str, Any]:
    names = ("digest", "name", "version", "parent", "source", "created", "size", "published_by")
    return {name: getattr(release, name) for name in names}


def _plain_link(link: Link) -> dict[str, Any]:
    optional = {"signed": link.signed, "made": link.made, "run": link.run, "alarm": link.alarm}
    return {
        "release": _plain_release(link.release),
        **{name: None if value is None else asdict(value) for name, value in optional.items()},
        "rollouts": [_plain_journey(journey) for journey in link.rollouts],
        "assigned": [asdict(each) for each in link.assigned],
    }


def _plain_journey(journey: Journey) -> dict[str, Any]:
    rollout = journey.rollout
    names = ("id", "channel", "candidate", "current", "state", "started", "ended", "cause", "reason", "started_by")
    return {
        **{name: getattr(rollout, name) for name in names},
        "policy": rollout.policy.model_dump(mode="json"),
        "approvals": [asdict(approval) for approval in journey.approvals],
        "history": [asdict(entry) for entry in journey.history],
    }
