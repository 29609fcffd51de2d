"""Clients that know exactly what they were answered: the other side of every count."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import numpy as np

from examples.digits.data import Images
from examples.digits.traffic import Client
from tests.doubles.packages import CLASSES, WIDTH

#: Rows of a request: single ones, as most clients send them, and batches.
SIZES = (1, 1, 4, 16)
#: Between two requests, seconds: a client leaves the other processes of a small machine some room.
PAUSE_S = 0.02
#: While nobody listens, seconds.
AWAY_S = 0.1
LABELS_AT_ONCE = 5
#: A request in flight ends within its client's own time limit; then whoever wants the client to be still has it.
STILL_S = 60.0


@dataclass
class Answered:
    """What a client has had answers for. What it has asked for and heard nothing of is ``unsure``: it may count or not.

    Attributes:
        classes: rows by predicted class, int64 [K].
        labels: labels that the agent has taken.
        unsure: rows of requests that broke before their answer.
        unsure_labels: labels of requests that broke.
    """

    classes: np.ndarray = field(default_factory=lambda: np.zeros(CLASSES, np.int64))
    labels: int = 0
    unsure: int = 0
    unsure_labels: int = 0

    @property
    def rows(self) -> int:
        """Rows answered."""
        return int(self.classes.sum())

    def copy(self) -> Answered:
        """As it is now."""
        return Answered(self.classes.copy(), self.labels, self.unsure, self.unsure_labels)

    def minus(self, other: Answered) -> Answered:
        """What came after ``other``."""
        return Answered(
            self.classes - other.classes,
            self.labels - other.labels,
            self.unsure - other.unsure,
            self.unsure_labels - other.unsure_labels,
        )


class Caller(threading.Thread):
    """One client of one agent: request after request, and labels for some answers, whatever becomes of the agent.

    Attributes:
        answered: so far; to be read while the client is `still` or has ended.
        refused: answers with an error, by status; ``0`` counts what nobody listened to.
    """

    def __init__(self, name: str, url: str, seed: int) -> None:
        super().__init__(name=f"caller-{name}", daemon=True)
        self.answered = Answered()
        self.refused: Counter[int] = Counter()
        self._history: list[tuple[float, Answered]] = []
        self._client = Client(url)
        self._chance = random.Random(seed)
        self._images: Images = np.random.default_rng(seed).normal(0.5, 1.0, (256, WIDTH)).astype(np.float32)
        self._to_label: list[tuple[str, int]] = []
        self._busy = threading.Lock()
        self._end = threading.Event()

    def run(self) -> None:
        """Ask until told to end."""
        while not self._end.is_set():
            with self._busy:
                listened = self._ask() if len(self._to_label) < LABELS_AT_ONCE else self._label()
            self._end.wait(PAUSE_S if listened else AWAY_S)

    @contextlib.contextmanager
    def still(self) -> Iterator[Answered]:
        """No request is under way inside, and none begins; gives what was answered until now."""
        assert self._busy.acquire(timeout=STILL_S), "a request did not end"
        try:
            yield self.answered.copy()
        finally:
            self._busy.release()

    def since(self, moment: float) -> Answered:
        """What was answered at ``moment`` (of the monotonic clock) and later."""
        before = next((so_far for at, so_far in reversed(self._history) if at < moment), Answered())
        return self.answered.minus(before)

    def moment_of_last(self, rows: int, now: float) -> float:
        """When the first of the last ``rows`` rows was answered; ``now`` for none."""
        total = self.answered.rows
        later = (at for at, so_far in self._history if so_far.rows > total - rows)
        return min(next(later, now), now)

    def stop(self) -> None:
        """End the thread, after the answer that it waits for."""
        self._end.set()
        self.join(STILL_S)
        self._client.close()

    def _ask(self) -> bool:
        size, first = self._chance.choice(SIZES), self._chance.randrange(len(self._images) - max(SIZES))
        try:
            identity, labels = self._client.infer(self._images[first : first + size])
        except httpx.HTTPError as error:
            sent = self._failed(error)
            self.answered.unsure += size * sent
            return sent
        self.answered.classes += np.bincount(labels, minlength=CLASSES)
        self._note()
        if size == 1:
            self._to_label.append((identity, int(labels[0])))
        return True

    def _label(self) -> bool:
        items, self._to_label = self._to_label, []
        try:
            taken = self._client.feedback(items)
        except httpx.HTTPError as error:
            sent = self._failed(error)
            self.answered.unsure_labels += len(items) * sent
            return sent
        self.answered.labels += taken
        self._note()
        return True

    def _failed(self, error: httpx.HTTPError) -> bool:
        """Whether the agent may have counted it all the same."""
        if isinstance(error, httpx.HTTPStatusError):
            self.refused[error.response.status_code] += 1
            return False
        if isinstance(error, httpx.ConnectError):
            self.refused[0] += 1
            return False
        return True

    def _note(self) -> None:
        self._history.append((time.monotonic(), self.answered.copy()))
