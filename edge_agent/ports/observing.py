"""Observing, as the data plane, doors and the cascade see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from edge_agent.ports.releases import Array, LoadedRelease
from edgeloop.records import dataclass


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
