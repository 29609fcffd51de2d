"""One release as a link of its chain, from the records of every part of the hub and the attestations beside it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, select

from cloud_hub import alarms
from cloud_hub.attestations import place
from cloud_hub.lineage.chain import Assigned, Journey, Link, Made, Signed
from cloud_hub.records.access_tables import audit_log
from cloud_hub.releases import Release
from cloud_hub.rollouts import approvals
from cloud_hub.rollouts import records as rollouts
from cloud_hub.training import run_records as runs
from cloud_hub.training.run_records import Run
from cloud_hub.trust.online import path_of, signers_of
from edgeloop.provenance import ProvenanceError, parse, read


def link_of(connection: Connection, release: Release, attestations: Path) -> Link:
    """How a release came to be and to spread.

    Args:
        connection: to the records.
        release: the release.
        attestations: folder of the releases' attestations.
    """
    path = path_of(connection, release.ref)
    run = _run_of(connection, release)
    return Link(
        release,
        None if path is None else Signed(path, signers_of(connection, path)),
        _made(attestations, release),
        run,
        None if run is None or run.alarm is None else alarms.find(connection, run.alarm),
        [
            Journey(each, approvals.given(connection, each.id), rollouts.history(connection, each.id))
            for each in rollouts.of_release(connection, release.digest)
        ],
        _assigned(connection, release),
    )


def _made(attestations: Path, release: Release) -> Made | None:
    try:
        envelope = read(place(attestations, release.digest, "provenance").read_bytes())
        said = parse(envelope.payload)
    except (OSError, ProvenanceError):
        return None
    return Made(said.builder, tuple(sorted(envelope.signatures)), said.materials)


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
