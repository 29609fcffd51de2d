"""A slot: one release that serves, what is known of it once, and the requests that run on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.ports import LoadedRelease, Recorder, ServingCounters
from edge_agent.serving.batching import BatchRules, measure
from edge_agent.serving.errors import BadRequest
from edge_agent.serving.statistics import Tally
from edgeloop.package import OutputSpec, TensorSpec
from edgeloop.runtime.datatypes import numpy_dtype

Array = npt.NDArray[Any]

#: The product of two larger numbers overflows FP32. Without this bound a client could have a new release rolled back.
ABSURD = 1e18
#: Combinations of wanted outputs that are remembered; clients name them, so there must be an end.
MOST_PLANS = 64
FEW_ELEMENTS = 64
#: A run may take so many times what was measured when the release was loaded: the device has other things to do.
HURRY = 5.0
#: Of one text. Ten megabytes of full stops held a tokenizer up for 14 s, and took a gigabyte.
MAX_TEXT_BYTES = 64 << 10


class Plan(NamedTuple):
    """What a run computes for one combination of wanted outputs.

    Attributes:
        names: of all outputs that are computed: the client's first, then what only observing needs.
        wanted: the client's.
        recorded: name → position of what observing and the cascade get; none where the scores alone are computed.
        scores: positions of outputs that have to be finite.
        light: the plan of a request that is observed by its scores alone; None: there is none, or this is it.
        sifted: the same run as this, observed by its scores alone, for those who look at every answer's features.
        alone: in a plan that is observed so, the scores' position.
    """

    names: list[str]
    wanted: tuple[str, ...]
    recorded: Mapping[str, int]
    scores: tuple[int, ...]
    light: Plan | None
    sifted: Plan | None
    alone: int | None


class Slot:
    """A release that serves. The data plane's lock guards the counts."""

    def __init__(
        self,
        loaded: LoadedRelease,
        recorder: Recorder | None,
        rules: BatchRules,
        max_text_bytes: int = MAX_TEXT_BYTES,
    ) -> None:
        """Measure the session; it is warm afterwards.

        Args:
            loaded: the release.
            recorder: who observes it; None: nobody.
            rules: of batches.
            max_text_bytes: of one text.

        Raises:
            InferenceError: the model fails on a golden case.
        """
        package, session = loaded.package, loaded.session
        self.loaded, self.recorder = loaded, recorder
        self.model, self.version = package.name, package.version
        self.inputs: tuple[TensorSpec, ...] = session.inputs
        self.first = session.inputs[0].name
        self._expected = [(spec, numpy_dtype(spec.datatype), len(spec.shape)) for spec in session.inputs]
        self._texts = [spec.name for spec in session.inputs if spec.datatype == "BYTES"]
        self._varying = [spec.name for spec in session.inputs if spec.shape[:1] == (-1,)]
        self._max_text_bytes = max_text_bytes
        self._known = {output.name for output in session.outputs}
        # The features are for observing; a client gets them when it names them.
        self.usual_specs: tuple[OutputSpec, ...] = tuple(o for o in session.outputs if o.role != "features")
        self._usual = tuple(output.name for output in self.usual_specs)
        extra = recorder.wanted_outputs(loaded) if recorder is not None else ()
        self._recorded = tuple(name for name in extra if name in self._known)
        self._scores = {o.name for o in session.outputs if o.role in ("probabilities", "logits")}
        self._plans: dict[tuple[str, ...], Plan] = {}
        self.tally = Tally()
        self.in_flight = 0
        self.retired = False
        self.rules = rules
        self.evidence = measure(session, package.golden().inputs, rules.max_rows)
        self.row_ns = self.evidence.run_ns[1]

    def hurried(self, seconds: float, rows: int) -> bool:
        """Whether a run had less time than such a one takes here: that it was not done says nothing of the release.

        Clients name the time that they have, and what is left of it when a run begins may be little.
        """
        return seconds < HURRY * rows * self.row_ns / 1e9

    def counters(self) -> ServingCounters:
        """Totals since the switch."""
        tally = self.tally
        return ServingCounters(
            tally.rows, tally.failures, tally.nonfinite, tally.run_ns, tally.executions, tally.requests
        )

    def plan(self, wanted: tuple[str, ...]) -> Plan:
        """What to compute for the outputs that a client names; () means the usual ones.

        Raises:
            BadRequest: there is no such output.
        """
        if (plan := self._plans.get(wanted)) is not None:
            return plan
        if unknown := set(wanted) - self._known:
            raise BadRequest(f"there is no output {min(unknown)!r:.200}; there are {', '.join(self._usual)}")
        mine = tuple(dict.fromkeys(wanted)) or self._usual
        plan = self._made(mine, self._recorded)
        if self._recorded:
            light = self._made(mine, self._recorded[:1])
            plan = plan._replace(
                light=light._replace(alone=light.recorded[self._recorded[0]], recorded={}),
                sifted=plan._replace(alone=plan.recorded[self._recorded[0]]),
            )
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        self._plans[wanted] = plan
        return plan

    def _made(self, wanted: tuple[str, ...], recorded: tuple[str, ...]) -> Plan:
        names = list(dict.fromkeys((*wanted, *recorded)))
        return Plan(
            names,
            wanted,
            {name: names.index(name) for name in recorded},
            tuple(position for position, name in enumerate(names) if name in self._scores),
            None,
            None,
            None,
        )

    def check(self, inputs: Mapping[str, Array]) -> int:
        """Hold inputs to the model's names, datatypes and shapes; returns the number of rows.

        Raises:
            BadRequest: they do not fit; the message says what would.
        """
        for spec, dtype, dimensions in self._expected:
            array = inputs.get(spec.name)
            if array is None:
                raise BadRequest(f"input {spec.name!r} is missing; {self.model} takes {_describe(self.inputs)}")
            if array.dtype != dtype:
                raise BadRequest(f"input {spec.name!r} is {array.dtype}; it has to be {spec.datatype}")
            shape = array.shape
            fits = len(shape) == dimensions
            for want, got in zip(spec.shape, shape, strict=False):
                fits = fits and want in (-1, got)
            if not fits:
                raise BadRequest(f"input {spec.name!r} has shape {list(shape)}; it has to be {list(spec.shape)}")
        if len(inputs) > len(self._expected):
            unknown = min(set(inputs) - {spec.name for spec in self.inputs})
            raise BadRequest(f"there is no input {unknown!r:.200}; {self.model} takes {_describe(self.inputs)}")
        for name in self._texts:
            self._check_texts(name, inputs[name])
        shape = inputs[self.first].shape
        rows = shape[0] if shape else 1
        if rows == 0:
            raise BadRequest("the batch is empty; send at least one row")
        return rows

    def _check_texts(self, name: str, texts: Array) -> None:
        most = self._max_text_bytes
        for row, text in enumerate(texts.ravel()):
            # A character has four bytes at most: a short text need not be encoded to be counted.
            if len(text) * 4 > most and len(text.encode()) > most:
                raise BadRequest(f"input {name!r}: text {row} is longer than {most} bytes (max_text_bytes)")

    def uneven(self, inputs: Mapping[str, Array]) -> bool:
        """Whether inputs that fit have different numbers of rows, where the model takes any number."""
        return len(self._varying) > 1 and len({inputs[name].shape[0] for name in self._varying}) > 1

    def blame(self, inputs: Mapping[str, Array]) -> None:
        """Called when an output is not finite: inputs that no model could answer are the client's fault.

        Raises:
            BadRequest: they are. Else it is the model's fault, and counted as such.
        """
        for name, array in inputs.items():
            if array.dtype.kind == "f" and not (np.abs(array) < ABSURD).all():
                raise BadRequest(
                    f"input {name!r} holds NaN, infinity or numbers beyond {ABSURD:g}; {self.model} has no finite "
                    "answer to it"
                )


def finite(array: Array) -> bool:
    """Whether every element is finite.

    Of few elements Python's sum says it sooner than any call of numpy's; of many the product of the array with itself
    says it in one call, unless it overflows.
    """
    if array.dtype.kind != "f":
        return True
    if array.size <= FEW_ELEMENTS:
        return math.isfinite(sum(array.ravel().tolist()))
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())


def _describe(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in specs)
