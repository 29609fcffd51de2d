"""A flow: one source with its sinks, and the thread that carries items from one to the others.

Its main verb: take an item, have it answered, give the result to every sink, and only then tell the source. So a sink
that is slow or full slows the source down, nothing waits in memory, and what a kill interrupts comes again from a
source that can be asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import asdict
from typing import Any, NamedTuple

from edge_agent.flows.backoff import Backoff
from edge_agent.flows.ports import Ended, Gone, Item, Missing, Reading, Rejected, Result, Sink, Source, Stopped, Trouble
from edge_agent.flows.results import result_of
from edge_agent.logs import Log
from edge_agent.serving.calls import SOURCE_PRIORITY, Answer, Call, Described
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.errors import BadRequest, Busy, DeadlinePassed, NotFound, NotReady
from edge_agent.serving.parameters import NO_PARAMETERS
from edgeloop.records import dataclass
from edgeloop.runtime.datatypes import numpy_dtype

log = Log(__name__)

#: First and longest wait, seconds: for a plane that is busy or not ready, and for a source that has to be opened anew.
PLANE_BACKOFF_S, SOURCE_BACKOFF_S = (0.01, 1.0), (0.5, 30.0)
#: Tries of one item before it is rejected: on which the model fails, which may have been the moment's fault, and that
#: are not answered in time, which may be that of callers, who come first, for a good while.
MOST_FAILURES, MOST_LATE = 3, 20
#: How long the thread waits at once, seconds; it looks whether to stop in between.
LOOK_S = 0.25
MOST_REASON = 500


class FlowSettings(NamedTuple):
    """What a flow needs of its source's settings: names of the source, of the model, of wanted outputs; parameters."""

    name: str
    model: str | None = None
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, str] = NO_PARAMETERS


@dataclass
class FlowCounts:
    """Running totals. Every item that was taken is answered, rejected, dropped or gone, or under way."""

    taken: int = 0
    answered: int = 0
    rejected: int = 0
    dropped: int = 0
    gone: int = 0
    waits: int = 0
    failures: int = 0
    reopened: int = 0


class Flow:
    """One source, its thread, and its sinks."""

    def __init__(self, settings: FlowSettings, source: Source, sinks: Sequence[Sink], plane: DataPlane) -> None:
        self.settings, self._source, self._sinks, self._plane = settings, source, tuple(sinks), plane
        self._counts = FlowCounts()
        #: Seconds to wait before each item: a device under strain takes fewer.
        self.pause_s = 0.0
        self._state, self._last_rejected = "starting", ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"source:{settings.name}", daemon=True)

    # ── for the others ────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def needs(self, sinks: Container[str]) -> bool:
        """Whether one of these sinks is one of its own."""
        return any(sink.name in sinks for sink in self._sinks)

    def ask_to_stop(self) -> None:
        """Take no more items; returns at once."""
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                log.warning("a source did not end in time", source=self.settings.name, waited_s=round(timeout_s, 1))

    def status(self) -> dict[str, Any]:
        """What status shows of it."""
        counts = asdict(self._counts)
        for name, value in self._source.counts().items():
            counts[name] = counts.get(name, 0) + value
        return {
            "name": self.settings.name,
            "state": self._source.trouble or self._state,
            "sinks": [sink.name for sink in self._sinks],
            "last_rejected": self._last_rejected,
            "counts": counts,
        }

    # ── the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        backoff = Backoff(*SOURCE_BACKOFF_S)
        while not self._stopping.is_set():
            taken = self._counts.taken
            try:
                try:
                    self._source.open()
                    self._state = "listening"
                    while True:
                        self._step()
                finally:
                    self._source.close()
            except Stopped:
                break
            except Ended:
                self._state = "ended"
                log.info("a source has ended", source=self.settings.name, **asdict(self._counts))
                return
            except Missing as error:
                self._state = f"cannot work: {error}"
                log.error("a source cannot work", source=self.settings.name, reason=str(error))
                return
            except Trouble as error:
                self._trouble(str(error))
            except Exception as error:
                log.exception("a source failed in an unforeseen way; it is opened anew", source=self.settings.name)
                self._trouble(f"an unforeseen error, see the log: {error}")
            self._counts.reopened += 1
            if self._counts.taken > taken:
                backoff.reset()
            self._stopping.wait(backoff.next())
        self._state = "stopped"

    def _step(self) -> None:
        if self.pause_s:
            self._stopping.wait(self.pause_s)
        item = self._next()
        self._counts.taken += 1
        try:
            result = self._answer(item)
        except Rejected as error:
            self._reject(item, str(error)[:MOST_REASON])
            return
        except Gone:
            self._counts.gone += 1
            return
        if result is None:
            self._counts.dropped += 1
            return
        for sink in self._sinks:
            sink.put(result, self._stopping)
        self._source.done(item)
        self._counts.answered += 1

    def _next(self) -> Item:
        while not self._stopping.is_set():
            if (item := self._source.next(LOOK_S)) is not None:
                return item
        raise Stopped("the agent stops")

    def _reject(self, item: Item, reason: str) -> None:
        self._counts.rejected += 1
        self._last_rejected = f"{item.key[:200]}: {reason}"
        # A flood of them must not fill the disk with log lines.
        if self._counts.rejected <= 10 or self._counts.rejected % 1000 == 0:
            log.warning("rejected", source=self.settings.name, item=item.key[:200], reason=reason)
        self._source.reject(item, reason)

    def _answer(self, item: Item) -> Result | None:
        """The item's result; None when it was dropped, since a newer one is worth more.

        Raises:
            Rejected: the item is no input, or the model failed on it again and again.
            Stopped: the agent stops.
        """
        backoff, failures, late = Backoff(*PLANE_BACKOFF_S), 0, 0
        described: Described | None = None
        reading: Reading | None = None
        while True:
            try:
                now = self._plane.describe(self._model(), None)
                if reading is None or now != described:
                    # After a switch the model may want the item in another form.
                    described, reading = now, self._read(item, now)
                answer = self._infer(described.name, item, reading)
                self._state = "listening"
                return result_of(
                    answer, described, self._labels(answer), source=self.settings.name, item=item, at=time.time()
                )
            except (Rejected, Gone, Stopped, Trouble, Missing):
                raise
            except (NotReady, NotFound, Busy) as error:
                why = str(error)
            except BadRequest as error:
                assert described is not None
                misfit = _misfit(described, reading) if reading is not None and reading.declared else ""
                if not misfit:
                    raise Rejected(str(error)) from error
                why = misfit
            except Exception as error:
                late += isinstance(error, DeadlinePassed)
                failures += not isinstance(error, DeadlinePassed)
                self._counts.failures += 1
                if failures >= MOST_FAILURES or late >= MOST_LATE:
                    raise Rejected(f"it had no answer in {failures + late} tries: {error}") from error
                why = f"it had no answer: {error}"
            self._wait(why, backoff)
            if self._source.live:
                return None

    def _model(self) -> str:
        if self.settings.model is not None:
            return self.settings.model
        loaded = self._plane.loaded
        if loaded is None:
            raise NotReady("no release serves yet")
        return loaded.package.name

    def _read(self, item: Item, described: Described) -> Reading:
        try:
            return self._source.read(item, described)
        except (Rejected, Gone, Trouble, Missing):
            raise
        except Exception as error:  # a library met what its authors did not think of: the item's fault, and its end
            log.warning("unforeseen", source=self.settings.name, item=item.key[:200], error=repr(error)[:MOST_REASON])
            raise Rejected(f"it cannot be read: {type(error).__name__}: {error}") from error

    def _infer(self, model: str, item: Item, reading: Reading) -> Answer:
        call = Call(
            model,
            None,
            reading.id or item.id,
            reading.inputs,
            reading.outputs or self.settings.outputs,
            priority=SOURCE_PRIORITY,
            parameters={**self.settings.parameters, **reading.parameters},
        )
        found = self._plane.infer(call)
        return self._outcome(found) if isinstance(found, Future) else found

    def _outcome(self, future: Future[Answer]) -> Answer:
        while True:
            try:
                return future.result(LOOK_S)
            except StillRunning:
                if future.done():
                    raise
                if self._stopping.is_set():
                    future.cancel()
                    raise Stopped("the agent stops") from None

    def _labels(self, answer: Answer) -> Sequence[str]:
        loaded = self._plane.loaded
        if loaded is None or (loaded.package.name, loaded.package.version) != (answer.model, answer.version):
            return ()
        return loaded.package.meta.labels

    def _wait(self, why: str, backoff: Backoff) -> None:
        self._counts.waits += 1
        self._state = f"waiting: {why[:MOST_REASON]}"
        if self._stopping.wait(backoff.next()):
            raise Stopped("the agent stops")

    def _trouble(self, why: str) -> None:
        state = f"trouble: {why[:MOST_REASON]}"
        if state != self._state:
            log.warning("a source has trouble; it is tried again", source=self.settings.name, reason=why[:MOST_REASON])
        self._state = state


def _misfit(described: Described, reading: Reading) -> str:
    """Why tensors as the settings declare them are none of the model's, or ""; no item can be blamed for that."""
    specs = {spec.name: spec for spec in described.inputs}
    for name, array in reading.inputs.items():
        spec = specs.get(name)
        fits = (
            spec is not None
            and array.dtype == numpy_dtype(spec.datatype)
            and len(array.shape) == len(spec.shape)
            and all(want in (-1, got) for want, got in zip(spec.shape, array.shape, strict=True))
        )
        if not fits:
            wants = ", ".join(f"{s.name} {s.datatype} {list(s.shape)}" for s in described.inputs)
            return (
                f"the settings make input {name} {array.dtype} {list(array.shape)}; {described.name} takes {wants}. "
                "Nothing is rejected for it: mend the settings, or wait for a release that fits"
            )
    return ""
