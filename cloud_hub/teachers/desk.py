"""A teacher's desk: a bounded queue of its own, and threads of its own, so that nobody else waits for this teacher.

Cases that somebody waits for go first. Where there is no room, the oldest case that nobody waits for makes some.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloud_hub.supervise import Worker
from cloud_hub.teachers.breaker import Breaker
from cloud_hub.teachers.port import Busy, Malformed, Opinion, Outcome, Question, Teacher, TeacherError, Unavailable

log = logging.getLogger(__name__)

#: How long a thread that has nothing to do sleeps before it looks whether it shall end, seconds.
_LOOK_S = 0.5


@dataclass(frozen=True, eq=False)
class Case:
    """A question on its way through a desk.

    Attributes:
        question: what is asked.
        wait: whether somebody waits for the answer.
        until: after this nobody asks any more, by the monotonic clock.
        size: bytes that it holds in memory.
        then: gets the outcome and the milliseconds that the teacher took; called once, by any thread.
    """

    question: Question
    wait: bool
    until: float
    size: int
    then: Callable[[Outcome, float], None]


@dataclass(frozen=True)
class DeskState:
    """How a desk is doing.

    Attributes:
        state: ``closed``: it works; ``open``: it rests after failures; ``trying``: the next question decides.
        waiting: cases in its queue.
        outcomes: cases by what became of them, since the start: answered, or the kind of `TeacherError`.
        last_error: the last failure that speaks against the teacher, or "".
        cost: what its calls have cost since the start.
    """

    state: str
    waiting: int
    outcomes: dict[str, int]
    last_error: str
    cost: float


class Desk:
    """One teacher's queue and threads.

    Args:
        name: of the teacher.
        hire: makes the teacher, in one of the desk's threads, when the first case is there; raises `TeacherError`.
        instances: cases, or batches of them, that are worked on at a time.
        timeout_s: what one call may take at most, seconds.
        most: cases that wait, at most.
        most_bytes: bytes that wait, at most.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        hire: Callable[[], Teacher],
        *,
        instances: int,
        timeout_s: float,
        most: int,
        most_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._hire, self._timeout_s, self._clock = name, hire, timeout_s, clock
        self._most, self._most_bytes = most, most_bytes
        self._first: deque[Case] = deque()
        self._later: deque[Case] = deque()
        self._bytes, self._closed = 0, False
        self._filled = threading.Condition()
        self._hiring = threading.Lock()
        self._teacher: Teacher | None = None
        self._batch = 1
        self.breaker = Breaker()
        self._outcomes: Counter[str] = Counter()
        self._cost, self._last_error = 0.0, ""
        self._at_work = instances
        self._workers = [Worker(f"teacher:{name}:{number}", self._work) for number in range(instances)]
        for worker in self._workers:
            worker.start()

    def put(self, case: Case) -> None:
        """Take a case; its outcome comes at once where there is no room, or the teacher rests."""
        refused: TeacherError | None = None
        pushed: list[Case] | None = []
        with self._filled:
            if self._closed:
                refused = Unavailable(f"the teacher {self.name} was taken away")
            elif self.breaker.state(self._clock()) == "open":
                refused = self._resting()
            elif (pushed := self._make_room(case)) is None:
                refused = Busy("no room")
            else:
                (self._first if case.wait else self._later).append(case)
                self._bytes += case.size
                self._filled.notify()
        for other in pushed or ():
            self._done(other, Busy("no room"), 0.0)
        if refused is not None:
            self._done(case, refused, 0.0)

    def state(self) -> DeskState:
        """How it is doing now."""
        with self._filled:
            waiting = len(self._first) + len(self._later)
            state = self.breaker.state(self._clock())
            return DeskState(state, waiting, dict(self._outcomes), self._last_error, self._cost)

    def close(self, timeout_s: float = 0.0) -> None:
        """Take no more cases; those that wait go on to the next teacher, those under way are finished."""
        with self._filled:
            self._closed = True
            left = [*self._first, *self._later]
            self._first.clear()
            self._later.clear()
            self._bytes = 0
            self._filled.notify_all()
        for worker in self._workers:
            worker.ask_to_stop()
        for case in left:
            self._done(case, Unavailable(f"the teacher {self.name} was taken away"), 0.0)
        until = time.monotonic() + timeout_s
        for worker in self._workers:
            worker.join(until - time.monotonic())

    def _make_room(self, case: Case) -> list[Case] | None:
        """The cases that give way to this one; None where not enough can."""
        waiting, size, pushed = len(self._first) + len(self._later), self._bytes, 0
        while waiting >= self._most or size + case.size > self._most_bytes:
            if pushed == len(self._later):
                return None
            waiting, size, pushed = waiting - 1, size - self._later[pushed].size, pushed + 1
        self._bytes = size
        return [self._later.popleft() for _ in range(pushed)]

    def _work(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if cases := self._take():
                self._answer(cases)
        self._go_home()

    def _go_home(self) -> None:
        """The last thread that ends frees what the teacher holds: whoever closes the desk does not wait for that."""
        with self._hiring:
            self._at_work -= 1
            teacher = self._teacher if not self._at_work else None
        if teacher is not None:
            teacher.close()

    def _take(self) -> list[Case]:
        with self._filled:
            if not self._first and not self._later and not self._closed:
                self._filled.wait(_LOOK_S)
            taken: list[Case] = []
            while len(taken) < self._batch and (self._first or self._later):
                taken.append((self._first or self._later).popleft())
                self._bytes -= taken[-1].size
            return taken

    def _answer(self, cases: list[Case]) -> None:
        now = self._clock()
        asked = [case for case in cases if case.until > now]
        for case in cases:
            if case.until <= now:
                self._done(case, Busy("no time is left"), 0.0)
        if not asked:
            return
        with self._filled:
            resting = None if self.breaker.admits(now) else self._resting()
        if resting is not None:
            for case in asked:
                self._done(case, resting, 0.0)
            return
        outcomes = self._ask(asked, min(self._timeout_s, max(case.until for case in asked) - now))
        ms = 1e3 * (self._clock() - now)
        self._judge(outcomes)
        for case, outcome in zip(asked, outcomes, strict=True):
            self._done(case, outcome, ms)

    def _ask(self, cases: list[Case], timeout_s: float) -> Sequence[Outcome]:
        try:
            outcomes = self._hired().answer([case.question for case in cases], timeout_s)
            if len(outcomes) == len(cases):
                return outcomes
            return [Malformed(f"{len(outcomes)} answers to {len(cases)} questions")] * len(cases)
        except TeacherError as error:
            return [error] * len(cases)
        except Exception as error:
            # A defect of an adapter must not lose the cases, nor end the thread.
            log.exception("the teacher %s failed in an unforeseen way", self.name)
            return [Unavailable(f"{type(error).__name__}: {error}"[:500])] * len(cases)

    def _resting(self) -> TeacherError:
        return Unavailable(f"the teacher {self.name} rests after failures: {self._last_error}"[:500])

    def _hired(self) -> Teacher:
        with self._hiring:
            if self._teacher is None:
                self._teacher = self._hire()
                self._batch = max(1, self._teacher.batch)
            return self._teacher

    def _judge(self, outcomes: Sequence[Outcome]) -> None:
        """One batch is one trial: it failed when every outcome speaks against the teacher."""
        faults = [one for one in outcomes if isinstance(one, TeacherError) and one.faulty]
        with self._filled:
            if len(faults) < len(outcomes):
                self.breaker.went_well()
                return
            waits = [fault.retry_after_s for fault in faults if isinstance(fault, Unavailable)]
            self.breaker.went_wrong(self._clock(), max(waits, default=0.0))
            self._last_error = str(faults[-1])[:500]
            state = self.breaker.state(self._clock())
        log.warning("the teacher %s: %s (%s)", self.name, faults[-1], state)

    def _done(self, case: Case, outcome: Outcome, ms: float) -> None:
        with self._filled:
            kind = "answered" if isinstance(outcome, Opinion) else type(outcome).__name__.lower()
            self._outcomes[kind] += 1
            self._cost += outcome.cost
        try:
            case.then(outcome, ms)
        except Exception:
            log.exception("what follows an answer of the teacher %s failed", self.name)
