"""Follows the chain of a release or a prediction, in one transaction, whether a hub runs on the records or not."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection, func, select

from cloud_hub import releases
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.lineage.chain import Lineage, Use
from cloud_hub.lineage.links import link_of
from cloud_hub.lineage.predictions import Answered, answered
from cloud_hub.records.database import Database
from cloud_hub.records.tables import channels, devices
from cloud_hub.releases import Release

#: Ancestors and successors that are looked at, each: a loop that closes daily for three years.
MOST_RELEASES = 1_000
#: Hex digits by which a release may be named, at least.
LEAST_DIGITS = 8
_DIGEST = re.compile(rf"(?:sha256:)?([0-9a-f]{{{LEAST_DIGITS},64}})")


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
            prediction = answered(connection, reference, device)
            named = {sighting.release for sighting in prediction.sightings}
            found = next((each for each in known if each.digest in named), None) if len(named) == 1 else None
            if found is None:
                return Lineage(reference, prediction, (), (), (), 0, prediction.unknown)
            return self._trace(connection, reference, found, known, prediction)

    def _trace(
        self,
        connection: Connection,
        asked: str,
        release: Release,
        known: Sequence[Release],
        prediction: Answered | None,
    ) -> Lineage:
        by_digest = {each.digest: each for each in known}
        chain = [link_of(connection, each, self._attestations) for each in _ancestors(release, by_digest)]
        oldest = chain[-1].release
        unknown = list(() if prediction is None else prediction.unknown)
        if oldest.parent is not None and oldest.parent not in by_digest:
            unknown.append(f"this hub does not have {oldest.parent}, of which {oldest.name} {oldest.version} was made")
        query = select(func.count()).select_from(devices).where(devices.c.release == release.digest)
        number = int(connection.execute(query).scalar_one())
        successors = tuple(_successors(release, known))
        return Lineage(asked, prediction, chain, successors, _uses(connection, release), number, unknown)


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


def _uses(connection: Connection, release: Release) -> list[Use]:
    return [
        Use(row.name, role)
        for row in connection.execute(select(channels).order_by(channels.c.name))
        for role in ("current", "candidate", "previous")
        if getattr(row, role) == release.digest
    ]
