"""What a lineage is made of: releases, each a link of the chain, with how it came to be and to spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloud_hub.alarms import Alarm
from cloud_hub.lineage.predictions import Answered
from cloud_hub.releases import Release
from cloud_hub.rollouts.approvals import Approval
from cloud_hub.rollouts.records import HistoryEntry, Rollout
from cloud_hub.training.run_records import Run


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
