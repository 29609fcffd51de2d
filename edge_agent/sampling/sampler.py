"""The sampler: looks at answered rows beside the hot path, draws those that are worth keeping, and puts them away.

`offer` is on the hot path, and only while samples are on: it draws whether a request is looked at, and appends it to a
queue that has an end. All else happens in a thread of its own. What is not looked at is drawn at random too, or comes
when there is no room: neither depends on what is in it, so the chances of the others stay right.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.clock import Clock
from edge_agent.inputs import tensors_of
from edge_agent.observing.store import Store, StoreError
from edge_agent.observing.thinning import STEPS, Thinning
from edge_agent.ports import LoadedRelease
from edge_agent.sampling.redaction import Redact, RedactionError, redacted
from edge_agent.sampling.store import SamplesError, SampleStore
from edgeloop.protocol import ProtocolError, Sample, decode, encode
from edgeloop.records import dataclass
from edgeloop.sampling.drawing import Drawing, Drawn, drawn_again
from edgeloop.sampling.policy import SamplesPolicy
from edgeloop.sampling.steering import Steering
from edgeloop.sampling.strategies import Rows

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

#: Requests a second that are looked at; of more a random share is.
LOOKED_AT_PER_S = 200.0
#: Requests that wait to be looked at, and what their inputs may take.
MOST_WAITING, MOST_BYTES = 128, 16 << 20
#: The thread looks as often, seconds.
LOOK_S = 0.2
#: Rows whose label may still come, and that are then drawn again where they were answered wrongly.
RECENT_ROWS, RECENT_BYTES = 4096, 8 << 20
#: Labels that wait to be looked at.
MOST_LABELS = 10_000
_LEAST_PROBABILITY = 1e-6
_NOTE = "samples/steering"
_LOGGED = 10
#: The one that serves, and the one before it.
_MOST_RELEASES = 2


class _Offered(NamedTuple):
    loaded: LoadedRelease
    id: str
    inputs: Mapping[str, Array]
    outputs: Sequence[Array]
    places: Mapping[str, int]
    segment: str
    looked_at: float


class _Row(NamedTuple):
    """A row that may be kept."""

    offered: _Offered
    place: int
    predicted: int
    confidence: float
    taken: float
    features: Array | None

    @property
    def bytes(self) -> int:
        return sum(array.nbytes // max(len(array), 1) for array in self.offered.inputs.values()) + 200


@dataclass
class Tally:
    """Since the start.

    Attributes:
        looked_at: requests.
        kept: samples.
        missed: requests that were not looked at for want of room.
        redacted: rows that the owner's redaction took out.
        failed: rows that could not be kept.
    """

    looked_at: int = 0
    kept: int = 0
    missed: int = 0
    redacted: int = 0
    failed: int = 0


class Sampler:
    """Implements `edge_agent.ports.Sampling`.

    Args:
        device: this one.
        agent: agent.db, which remembers the budget.
        store: of samples.
        policy: in force.
        channel: that the device follows now.
        drifted: whether the device sees a drift of a release.
        redact: the owner's, or None.
        kept: called when something new waits.
        clock: the device's.
        seed: of the draws; None: nobody can foresee them.
    """

    def __init__(
        self,
        device: str,
        agent: Store,
        store: SampleStore,
        policy: SamplesPolicy,
        *,
        channel: Callable[[], str],
        drifted: Callable[[str], bool],
        redact: Redact | None,
        kept: Callable[[], None],
        clock: Clock,
        seed: int | None = None,
    ) -> None:
        self._device, self._agent, self._store, self.policy = device, agent, store, policy
        self._channel, self._drifted, self._redact, self._told, self._clock = channel, drifted, redact, kept, clock
        self._random = np.random.default_rng(seed)
        self._steering = Steering(_remembered(agent))
        self._thinning = Thinning(LOOKED_AT_PER_S)
        self._waiting: deque[_Offered] = deque()
        self._waiting_bytes = 0
        self._labels: deque[tuple[str, int, int]] = deque(maxlen=MOST_LABELS)
        self._drawings: dict[str, Drawing] = {}
        self._recent: OrderedDict[tuple[str, int], tuple[_Row, float]] = OrderedDict()
        self._recent_bytes = 0
        self._rows = self._wrong = 0.0
        self.tally = Tally()
        #: Why nothing is kept, or "".
        self.trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)

    # -- the data plane's side ------------------------------------------------------------------------------------

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
        """Note one answered request; never blocks."""
        self._thinning.seen(1)
        share = self._thinning.share
        if not self._thinning.draw():
            return
        size = sum(array.nbytes for array in inputs.values())
        # Two threads may lose one another's sum: the bound need not be exact.
        if len(self._waiting) >= MOST_WAITING or self._waiting_bytes + size > MOST_BYTES:
            self.tally.missed += 1
            return
        if lent:
            inputs = {name: array.copy() for name, array in inputs.items()}
        self._waiting_bytes += size
        looked_at = min(share, STEPS) / STEPS
        self._waiting.append(_Offered(loaded, prediction_id, inputs, outputs, places, segment, looked_at))

    def labelled(self, items: Sequence[tuple[str, int, int]]) -> None:
        """True labels have come: (prediction id, row in the request, class index); never blocks."""
        self._labels.extend(items)

    # -- the thread -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End it; what was not looked at is forgotten."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Deal with what waits."""
        self._thinning.look(self._clock.monotonic())
        offered = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._waiting_bytes = 0
        for one in offered:
            if self._stopping.is_set():
                return
            self._guarded(self._take, one)
            self.tally.looked_at += 1
        for label in [self._labels.popleft() for _ in range(len(self._labels))]:
            self._guarded(self._label, *label)

    def _guarded(self, work: Callable[..., None], *values: Any) -> None:
        """Keeping samples must never cost an answer: what fails is counted and shown."""
        try:
            work(*values)
        except (RedactionError, SamplesError, StoreError, ProtocolError) as error:
            self._failed(str(error))
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")
            if self.tally.failed <= _LOGGED:
                log.exception("a row could not be looked at")

    def _failed(self, reason: str) -> None:
        if reason != self.trouble:
            log.warning("no sample was kept: %s", reason)
        self.trouble = reason
        self.tally.failed += 1

    def _take(self, offered: _Offered) -> None:
        policy, now = self.policy, self._clock.wall()
        session = offered.loaded.session
        outputs = {name: offered.outputs[place] for name, place in offered.places.items()}
        probabilities = session.probabilities(outputs)
        if probabilities is None:
            return
        features = outputs.get(session.roles.get("features") or "")
        if features is not None:
            features = features.reshape(len(probabilities), -1)
        elif policy.travels == "features":
            return
        rows = Rows(probabilities, features, self._drifted(offered.loaded.digest))
        self._steering.seen(policy, len(rows), now)
        self._rows += len(rows)
        share = self._steering.share(policy)
        drawing = self._drawing(offered.loaded.digest)
        draw = drawing.draw(policy.strategies, share, rows, self._random.random(len(rows)))
        drawn = {one.row: one for one in draw.kept}
        predicted = rows.predicted
        for place in range(len(rows)) if "disagreement" in policy.strategies else drawn:
            kept = None if features is None else features[place]
            confidence = float(min(max(probabilities[place].max(), 0.0), 1.0))
            row = _Row(offered, place, int(predicted[place]), confidence, now, kept)
            if (one := drawn.get(place)) is None:
                self._remember(row, float(draw.chances[place]))
            elif self._keep(row, one, None):
                drawing.memory.keep(kept)

    def _keep(self, row: _Row, drawn: Drawn, label: int | None) -> bool:
        """Put a row away; returns whether it was."""
        policy, offered = self.policy, row.offered
        name = offered.loaded.session.roles.get("features")
        features = None
        if row.features is not None and name is not None:
            features = name, offered.outputs[offered.places[name]]
        tensors = tensors_of(policy.travels, offered.inputs, row.place, features=features, small_side=policy.small_side)
        if self._redact is not None:
            found = redacted(self._redact, tensors)
            if found is None:
                self.tally.redacted += 1
                return False
            tensors = found

        def made(number: int) -> Sample:
            return Sample(
                device=self._device,
                epoch=self._agent.epoch,
                number=number,
                channel=self._channel(),
                release=offered.loaded.digest,
                id=offered.id,
                form=policy.travels,
                tensors=tensors,
                strategy=drawn.strategy,
                probability=max(drawn.probability * offered.looked_at, _LEAST_PROBABILITY),
                predicted=row.predicted,
                confidence=row.confidence,
                taken=row.taken,
                index=row.place,
                label=label,
                segment=offered.segment,
            )

        size = self._store.add(made, lambda size: self._steering.fits(policy, size))
        if not size:
            return False
        self._steering.kept(size)
        self._agent.set_note(_NOTE, encode(self._steering.state()))
        self.tally.kept += 1
        self.trouble = ""
        self._told()
        return True

    # -- labels ---------------------------------------------------------------------------------------------------

    def _label(self, prediction_id: str, place: int, label: int) -> None:
        if self._store.label(prediction_id, place, label):
            self._told()
            return
        found = self._recent.pop((prediction_id, place), None)
        if found is None:
            return
        row, before = found
        self._recent_bytes -= row.bytes
        if label == row.predicted:
            return
        self._wrong += 1
        policy = self.policy
        share = min(1.0, self._steering.share(policy) * self._rows / self._wrong)
        weight = policy.strategies.get("disagreement", 0.0)
        chance = drawn_again(weight, share, before, float(self._random.random()))
        if chance is not None:
            self._keep(row, Drawn(row.place, "disagreement", chance), label)

    def _remember(self, row: _Row, chance: float) -> None:
        """Keep a row in memory until its label comes, or there is no room any more."""
        key = row.offered.id, row.place
        if (before := self._recent.pop(key, None)) is not None:
            self._recent_bytes -= before[0].bytes
        self._recent[key] = row, chance
        self._recent_bytes += row.bytes
        while len(self._recent) > RECENT_ROWS or self._recent_bytes > RECENT_BYTES:
            self._recent_bytes -= self._recent.popitem(last=False)[1][0].bytes

    def _drawing(self, release: str) -> Drawing:
        if (found := self._drawings.get(release)) is None:
            found = self._drawings[release] = Drawing()
            while len(self._drawings) > _MOST_RELEASES:
                del self._drawings[next(iter(self._drawings))]
        return found


def _remembered(agent: Store) -> dict[str, float]:
    """What was spent of the budget before a restart."""
    try:
        found = decode(agent.note(_NOTE) or encode({}))
        return {str(name): float(value) for name, value in found.items()}
    except (ProtocolError, ValueError, TypeError, AttributeError) as error:
        log.warning("what was spent of the samples' budget cannot be read: %s", error)
        return {}
