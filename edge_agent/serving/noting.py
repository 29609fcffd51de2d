"""What is noted of each answer, and of each failure: observing, samples and the cascade get their share of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from edge_agent.ports import Sampling
from edge_agent.serving.calls import Answer, Array, Call, Escalating
from edge_agent.serving.errors import BadRequest, Busy, DeadlinePassed, ModelFailed
from edge_agent.serving.slot import Plan, Slot, finite
from edgeloop.runtime import DeadlineExceeded, InferenceError, Stopped

NOT_AUDITED: tuple[int, ...] = ()


class NotFinite(InferenceError):
    """An output that has to be finite is not."""


class Noting:
    """Makes answers of runs, and tells of them whoever has to know.

    Attributes:
        escalating: draws hard answers of the channel's model for the hub's teacher; None: there is no cascade.
        sampling: is offered what the channel's release answers; None: nobody keeps samples.
    """

    def __init__(self, id_prefix: str, deadline_s: float) -> None:
        """Nothing is noted yet.

        Args:
            id_prefix: of generated ids: no other life of this agent may have the same.
            deadline_s: seconds that a request may take which does not say.
        """
        self._prefix, self._numbers, self._deadline_s = id_prefix, itertools.count(1), deadline_s
        self.escalating: Escalating | None = None
        self.sampling: Sampling | None = None

    def check_scores(self, slot: Slot, plan: Plan, found: Sequence[Array], inputs: Mapping[str, Array]) -> None:
        """Hold a run's scores to being finite.

        Raises:
            BadRequest: they are not, and no model could answer these inputs.
            NotFinite: they are not.
        """
        for position in plan.scores:
            if not finite(found[position]):
                slot.blame(inputs)
                raise NotFinite(f"its output {plan.names[position]} is not finite")

    def answer(
        self, slot: Slot, plan: Plan, call: Call, found: Sequence[Array], latency_ns: int, run_ns: int
    ) -> Answer:
        """The answer that a run gives, which has been noted.

        Args:
            slot: what ran.
            plan: what it computed.
            call: what was asked.
            found: the run's outputs, this call's rows of them.
            latency_ns: from the call's arrival to the end of the run.
            run_ns: of the run.
        """
        identity = call.id or f"{self._prefix}-{next(self._numbers)}"
        recorder, audit, asked = slot.recorder, NOT_AUDITED, None
        if recorder is not None:
            segment = "" if recorder.segment_field is None else recorder.segment_of(call.parameters)
            if recorder.audit_share:
                audit = recorder.drawn(slot.loaded, identity, _rows(call.inputs[slot.first]))
            if (escalating := self.escalating) is not None and escalating.on and plan.recorded:
                left_s = (call.timeout_s or self._deadline_s) - latency_ns / 1e9
                asked = escalating.draw(slot.loaded, identity, call.inputs, found, plan.recorded, segment, left_s)
            if plan.alone is not None:
                recorder.record_scores(slot.loaded, identity, found[plan.alone], segment, latency_ns, run_ns)
            else:
                first = call.inputs[slot.first]
                if call.lent:
                    first = first.copy()
                recorder.record(slot.loaded, identity, first, found, plan.recorded, segment, latency_ns, run_ns)
            if (sampling := self.sampling) is not None:
                sampling.offer(slot.loaded, identity, call.inputs, call.lent, found, plan.recorded, segment)
        answer = Answer(identity, slot.model, slot.version, tuple(zip(plan.wanted, found, strict=False)), audit)
        if asked is None:
            return answer
        asked.send()
        return answer._replace(escalated=asked.rows, pending=asked if asked.waits else None)

    def failure(self, slot: Slot, error: BaseException, call: Call, rows: int) -> tuple[BaseException, bool, int]:
        """What to raise for an error, whether it is a failure of the model, and rows that were not finite."""
        match error:
            case DeadlineExceeded():
                raised: BaseException = DeadlinePassed(f"{slot.model} was not done in time: {error}")
                if slot.hurried(error.after_s, rows):
                    return raised, False, 0
            case Stopped():
                return Busy(str(error)), False, 0
            case NotFinite():
                raised = ModelFailed(f"{slot.model} failed on this input: {error}")
            case InferenceError() if slot.uneven(call.inputs):
                return (
                    BadRequest(f"the inputs have different numbers of rows, and {slot.model} failed: {error}"),
                    False,
                    0,
                )
            case InferenceError():
                raised = ModelFailed(f"{slot.model} failed on this input: {error}")
            case _:
                return error, False, 0
        if (recorder := slot.recorder) is not None:
            segment = "" if recorder.segment_field is None else recorder.segment_of(call.parameters)
            recorder.record_error(slot.loaded, segment)
        return raised, True, rows if isinstance(error, NotFinite) else 0


def _rows(first: Array) -> int:
    return first.shape[0] if first.shape else 1
