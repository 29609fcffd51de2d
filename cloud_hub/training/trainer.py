"""The port of trainers: what each gets, and what it leaves for the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cloud_hub.policy import RetrainingPolicy
from cloud_hub.training.gate import Evidence
from edgeloop.insights import Profile
from edgeloop.package import Package
from edgeloop.provenance import Material


class TrainingError(Exception):
    """No candidate can be made; the message says what is missing and what to do."""


class Cancelled(TrainingError):
    """Somebody, or the hub's own stop, has ended the run."""


class Repeated(TrainingError):
    """The same data, trained in the same way, has already led to a candidate that the same gate refused."""


@dataclass(frozen=True, eq=False)
class Job:
    """One run, as a trainer sees it.

    Attributes:
        run: its id.
        channel: whose current release is retrained.
        base: that release's package.
        profile: the base's.
        family: digests of the releases that share its backbone, newest first; the base is one of them.
        policy: the channel's.
        version: the candidate's.
        lineage: where it comes from; the trainer adds itself and its data.
        folder: the trainer's own, for as long as the run lasts; of a trainer that is resumable it may hold what an
            interrupted attempt has left.
        since: unix seconds of the first label that is used, or None for all.
        settled: unix seconds since which everything is the new normal, or None: nothing has moved.
        until: unix seconds; what comes later belongs to the next run. The same in every attempt of a run.
        uses: to be told of the data before anything is made of it; raises `Repeated` where that would be in vain.
        say: tells people how far it is: one line, which goes to the run's log, and a share in 0…1 or None.
        stopped: whether it has to end now; asked often by whatever takes long. Then it raises `Cancelled`.
    """

    run: int
    channel: str
    base: Package
    profile: Profile
    family: Sequence[str]
    policy: RetrainingPolicy
    version: str
    lineage: Mapping[str, Any]
    folder: Path
    since: float | None
    settled: float | None
    until: float
    uses: Callable[[Material], None] = lambda data: None
    say: Callable[[str, float | None], None] = lambda line, share: None
    stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True, eq=False)
class Candidate:
    """A candidate package that is not yet a release.

    Attributes:
        package: the package on disk, inside the job's folder.
        evidence: for the gate.
        facts: what was made, from what; plain. ``method`` is in it, and what else its provenance tells.
        materials: what it was made of, besides the base.
        kept: small arrays that are kept of a candidate that is refused, by name.
    """

    package: Package
    evidence: Evidence
    facts: Mapping[str, Any]
    materials: Sequence[Material]
    kept: Mapping[str, Any] = field(default_factory=dict)


class Trainer(Protocol):
    """Makes candidates. It knows nothing of runs, gates and rollouts. Each run has a thread of its own."""

    @property
    def name(self) -> str:
        """As policies and lineages have it."""

    @property
    def resumable(self) -> bool:
        """Whether a run that the hub's stop or death has interrupted goes on, in the same folder, at its next start."""

    def labels(self, channel: str, family: Sequence[str], since: float | None) -> int:
        """Number of labels that a run would have now; asked every second, so it reads counts and nothing else.

        Args:
            channel: the channel.
            family: digests of the releases that share the backbone.
            since: unix seconds of the first label that counts, or None for all.
        """

    def train(self, job: Job) -> Candidate:
        """A candidate.

        Raises:
            TrainingError: there is none; the message is the run's reason.
        """
