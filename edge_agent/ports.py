"""The agent's ports: what its parts ask of one another, on one page.

The composition root (``edge_agent.app``) is the only place that joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgeloop.insights import Profile
from edgeloop.package import Package
from edgeloop.protocol import ChannelDocument, Desired, DeviceAlarm, TrialReport, TrialRequest
from edgeloop.records import dataclass
from edgeloop.runtime import ModelSession

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class LoadedRelease:
    """A release whose session is loaded and has passed its golden cases.

    Attributes:
        digest: ``sha256:…`` of the release's index.
        package: the opened package folder on this device.
        session: the session that serves it.
        profile: what normal looks like; None when the package has no profile.
    """

    digest: str
    package: Package
    session: ModelSession
    profile: Profile | None


@dataclass(frozen=True)
class ServingCounters:
    """Running totals of one loaded release since it was switched on; probation watches them.

    Latencies are in nanoseconds, summed over successful requests. A prediction is a row; a run answers one or several.
    """

    predictions: int
    errors: int
    nonfinite: int
    latency_ns: int
    runs: int


class Serving(Protocol):
    """The data plane, as the update machine sees it."""

    def switch(self, loaded: LoadedRelease | None) -> None:
        """Make ``loaded`` answer every new request; requests in flight finish on the old session.

        The old session is closed when its last request has finished. ``None`` serves nothing.
        """

    def counters(self) -> ServingCounters:
        """Totals of the release that serves now, since its switch."""


@dataclass(frozen=True)
class FeedbackItem:
    """The true label of an earlier prediction.

    Attributes:
        prediction_id: of its request.
        label: the class's index or name.
        index: the row in that request's batch.
        most_weight: of a label that the hub's teacher gave: it weighs the inverse of the probability with which the row
            was drawn for it, and no more than this; None: somebody else gave it, and it weighs 1.
    """

    prediction_id: str
    label: int | str
    index: int = 0
    most_weight: float | None = None


@dataclass(frozen=True)
class FeedbackResult:
    """What became of a batch of feedback; every item is in exactly one of the four."""

    accepted: int
    unknown: Sequence[str]
    duplicate: Sequence[str]
    invalid: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class OpenAudit:
    """An answer that was drawn at random: its true label is asked for, and has not come.

    Attributes:
        id: of its request.
        index: the row in that request's batch.
        release: digest of the release that answered.
        predicted: the class index that was predicted.
        label: that class's name.
        confidence: its probability.
        segment: of the request.
    """

    id: str
    index: int
    release: str
    predicted: int
    label: str
    confidence: float
    segment: str


class Chosen(NamedTuple):
    """How a row was chosen for the hub's teacher.

    Attributes:
        probability: chance with which it was drawn, given all that the device knew of it; above 0.
        features: of the row, float32 [F], or None for a model without.
    """

    probability: float
    features: Array | None = None


class Recorder(Protocol):
    """Observing, as the data plane sees it. ``record`` is on the hot path: it only appends.

    Attributes:
        segment_field: parameter of requests by which windows are kept apart; None: they are not, and every segment is
            "".
        audit_share: share of the answers that are drawn for an audit; 0: none.
    """

    segment_field: str | None
    audit_share: float

    def drawn(self, loaded: LoadedRelease, prediction_id: str, rows: int) -> tuple[int, ...]:
        """Which rows of a request that is recorded next are drawn; asked only where there is an ``audit_share``."""

    def open_audits(self, most: int) -> Sequence[OpenAudit]:
        """Answers that were drawn and have no label yet, the newest first, ``most`` of them."""

    def kept(self, prediction_id: str) -> Sequence[OpenAudit]:
        """The rows of an earlier answer, drawn or not; none where it is not kept."""

    def segment_of(self, parameters: Mapping[str, Any]) -> str:
        """The segment of a request with these parameters; asked only where there is a ``segment_field``."""

    def wanted_outputs(self, loaded: LoadedRelease) -> Sequence[str]:
        """Names of the outputs that observing needs besides the client's: the scores first, then the features."""

    def in_full(self) -> bool:
        """Whether the next request is to be observed with its inputs and features, or by its scores alone."""

    def record(
        self,
        loaded: LoadedRelease,
        prediction_id: str,
        inputs: Array,
        outputs: Sequence[Array],
        places: Mapping[str, int],
        segment: str,
        latency_ns: int,
        run_ns: int,
    ) -> None:
        """Note one answered request. The arrays are read later: nobody may change them after this.

        Args:
            loaded: what answered.
            prediction_id: of the request.
            inputs: the first input, [N, …].
            outputs: of its run, [N, …] each.
            places: name → place in ``outputs``.
            segment: of the request, or "".
            latency_ns: from its arrival to the end of its run; what is not the run is waiting.
            run_ns: of its run.
        """

    def record_scores(
        self, loaded: LoadedRelease, prediction_id: str, scores: Array, segment: str, latency_ns: int, run_ns: int
    ) -> None:
        """Note one answered request by its scores alone, [N, K]; they are copied."""

    def choose(self, prediction_id: str, rows: Mapping[int, Chosen]) -> None:
        """Rows of the request that is recorded next were drawn for the hub's teacher."""

    def escalated(self, release: str, segment: str) -> None:
        """Note one row that was sent to the hub's teacher."""

    def taught(self, items: Sequence[FeedbackItem]) -> None:
        """Note labels that the hub's teacher gave, to be counted soon; those that cannot be are logged."""

    def settle(self) -> None:
        """Called when clients have been answered whose requests were recorded; may take a millisecond."""

    def record_error(self, loaded: LoadedRelease, segment: str = "") -> None:
        """Note one request that failed through the model's or the agent's fault (never the client's)."""

    def feedback(self, items: Sequence[FeedbackItem]) -> FeedbackResult:
        """Take true labels for earlier predictions."""


class Sampling(Protocol):
    """Samples, as the data plane sees them, while any may be kept."""

    def offer(
        self,
        loaded: LoadedRelease,
        prediction_id: str,
        inputs: Mapping[str, Array],
        lent: bool,
        outputs: Sequence[Array],
        places: Mapping[str, int],
        segment: str,
    ) -> None:
        """Note one answered request; never blocks, never raises. The arrays are read later.

        Args:
            loaded: what answered.
            prediction_id: of the request.
            inputs: by name, [N, …] each.
            lent: whether somebody may change them once the request is answered.
            outputs: of the run, [N, …] each.
            places: name → place in ``outputs``.
            segment: of the request, or "".
        """


class Reporter(Protocol):
    """Whoever tells the hub about the state of the update machine."""

    def report(self) -> None:
        """Publish the reported document soon; never blocks, never raises."""


@dataclass(frozen=True)
class UpdateStatus:
    """Where the update machine stands; ``state`` is a state of the table in DESIGN 4.

    Attributes:
        state: idle, fetching, verifying, staged, testing, probation, committed or rolled_back.
        release: digest of the release that the state is about, or None.
        reason: why, for rolled_back; else what is going on. A sentence for a person.
        rollout: id of the rollout that offered it, or None.
        attempt: how many times this release was tried.
        since: unix seconds.
    """

    state: str
    release: str | None
    reason: str
    rollout: str | None
    attempt: int
    since: float


@dataclass(frozen=True)
class Vitals:
    """What the composition root knows of the device; ``health`` holds plain figures and words."""

    variant: str = ""
    provider: str = ""
    placement: Mapping[str, int] = field(default_factory=dict)
    health: Mapping[str, Any] = field(default_factory=dict)
    alarms: tuple[DeviceAlarm, ...] = ()


@dataclass(frozen=True)
class MessagingState:
    """What status shows of messaging; before the line to the hub is made, its broker and its channel."""

    broker: str
    channel: str
    connected: bool = False
    last_error: str = ""
    mqtt: str = ""
    serial: int = 0
    malformed: int = 0
    stale: int = 0
    last_malformed: str = ""


Work = Callable[[], None]


class Untrusted(Exception):
    """Nobody who may has vouched for what came from the hub; the message is the reason that people read.

    Attributes:
        again: whether the same may be trusted later: the hub could not be asked, or the clock may be wrong.
    """

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class Vouched:
    """Who answers for a release; in a fleet without signatures nobody does, and every field is empty.

    Attributes:
        model: whose release it is.
        order: (counter, revision): greater for a later release of the model; None where nothing is signed.
        role: that names it.
        base: digest of the publisher's release that it was retrained from; None for a publisher's own.
    """

    model: str = ""
    order: tuple[int, int] | None = None
    role: str = ""
    base: str | None = None


@dataclass(frozen=True)
class TrustState:
    """What status shows of trust.

    Attributes:
        signed: whether the fleet signs.
        root: version of the root that is trusted, or 0.
        ends: unix seconds at which the first of the metadata ends, or 0.
        trouble: why something is not trusted now, or "".
        refused: documents and releases that were not trusted, since the start.
        ms: milliseconds that the latest verification took, without its process's start.
    """

    signed: bool = False
    root: int = 0
    ends: float = 0.0
    trouble: str = ""
    refused: int = 0
    ms: int = 0


class Trust(Protocol):
    """Who vouches for what comes from the hub. Whatever is not vouched for changes nothing: what served goes on."""

    def soon(self, subject: str, work: Work) -> None:
        """Have something opened where that may take its time; of a subject only the latest counts.

        ``work`` may raise `Untrusted`; it is called again when that may pass.
        """

    def open_channel(self, channel: str, payload: bytes) -> ChannelDocument:
        """What is on a channel's topic; raises ProtocolError or `Untrusted`."""

    def open_desired(self, payload: bytes) -> Desired | None:
        """What is on the device's ``desired`` topic, or None to change nothing; raises ProtocolError or `Untrusted`."""

    def era(self) -> str:
        """Which keys sign documents now, "" where none do: serials count for as long as these do, and then anew."""

    def vouch(self, release: str, index_size: int, target: str) -> Vouched:
        """Who answers for a release that the latest document names; raises `Untrusted`.

        Args:
            release: its digest.
            index_size: bytes of its index.
            target: its path in the fleet's signed metadata, or "".
        """

    def state(self) -> TrustState:
        """What is trusted now."""

    def stop(self, timeout_s: float) -> None:
        """End what is under way."""


class Updates(Protocol):
    """The update machine, as messaging and status see it."""

    def follow(self, document: Any) -> None:
        """Take a channel document (``edgeloop.protocol.messages.ChannelDocument``); returns at once."""

    def status(self) -> UpdateStatus:
        """The present state."""

    def committed(self) -> str | None:
        """Digest of the last committed release."""

    def previous(self) -> str | None:
        """Digest of the release that was committed before it and is kept for going back."""


class Measuring(Protocol):
    """Trials, as messaging sees them."""

    def follow(self, request: TrialRequest | None) -> None:
        """Take what the hub wants measured, or that it wants nothing; returns at once."""

    def report(self) -> TrialReport | None:
        """Where the trial stands that the hub asks for, or None when it asks for none."""


FloatArray = npt.NDArray[np.float64]
