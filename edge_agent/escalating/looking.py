"""Looking at the answered rows of a request: how hard they are, and what of them travels to the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edge_agent.escalating.asked import AskedRow
from edge_agent.inputs import tensors_of
from edge_agent.ports import Array, Chosen, LoadedRelease
from edgeloop.cascade.hardness import Gauge
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.cascade.steering import Draw
from edgeloop.insights.sizes import Floats
from edgeloop.protocol import Escalation
from edgeloop.records import dataclass


@dataclass(frozen=True)
class Seen:
    """The rows of one request.

    Attributes:
        release: that answered.
        id: of the prediction.
        segment: of the windows.
        inputs: name → [N, …].
        scores: probabilities [N, K].
        features: the output's name and its values [N, F], or None: the model has none.
        signals: float64 [N, S], see :meth:`edgeloop.cascade.hardness.Gauge.signals`.
    """

    release: LoadedRelease
    id: str
    segment: str
    inputs: Mapping[str, Array]
    scores: Array
    features: tuple[str, Array] | None
    signals: Floats

    @property
    def classes(self) -> int:
        """K."""
        return int(self.scores.shape[1])

    def chosen(self, index: int, probability: float) -> Chosen:
        """What is kept of a row that is sent, so that its label finds it."""
        return Chosen(probability, None if self.features is None else self.features[1][index].astype(np.float32))


class Looks:
    """Looks at rows.

    Args:
        device: its name.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._gauged = "", Gauge(None, 1)
        #: Gives the channel that the device follows.
        self.channel: Callable[[], str] = str

    def at(
        self,
        release: LoadedRelease,
        prediction_id: str,
        segment: str,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> Seen | None:
        """Look at a request's rows; None where the model gives no scores of classes."""
        scores = release.session.probabilities(outputs)
        if scores is None or scores.ndim != 2:
            return None
        name = release.session.output("features")
        features = outputs[name].reshape(len(scores), -1) if name is not None and name in outputs else None
        signals = self._gauge(release, scores.shape[1]).signals(scores, features, next(iter(inputs.values())))
        named = None if name is None or features is None else (name, features)
        return Seen(release, prediction_id, segment, inputs, scores, named, signals)

    def row(self, seen: Seen, index: int, drawn: Draw, policy: EscalationPolicy, wait_s: float | None) -> AskedRow:
        """A row that was drawn, with the message that asks the teacher about it.

        Args:
            seen: the rows.
            index: of the row.
            drawn: what was drawn of them.
            policy: says what travels.
            wait_s: seconds that a client waits for the answer, or None: nobody does.
        """
        predicted, confidence = int(seen.scores[index].argmax()), float(seen.scores[index].max())
        probability, hardness = float(drawn.probability[index]), float(drawn.hardness[index])
        message = Escalation(
            device=self._device,
            channel=self.channel(),
            release=seen.release.digest,
            id=seen.id,
            form=policy.travels,
            tensors=tensors_of(
                policy.travels, seen.inputs, index, features=seen.features, small_side=policy.small_side
            ),
            probability=probability,
            predicted=predicted,
            confidence=min(confidence, 1.0),
            index=index,
            audit=bool(drawn.audit[index]),
            wait=wait_s is not None,
            deadline_ms=0 if wait_s is None else int(wait_s * 1e3),
            segment=seen.segment,
            hardness=hardness,
        )
        return AskedRow(index, predicted, probability, hardness, seen.signals[index], message.to_bytes())

    def _gauge(self, release: LoadedRelease, classes: int) -> Gauge:
        digest, gauge = self._gauged
        if digest != release.digest:
            gauge = Gauge(release.profile, classes)
            self._gauged = release.digest, gauge
        return gauge
