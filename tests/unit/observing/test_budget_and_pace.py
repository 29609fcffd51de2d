"""What leaves when: never more in any 24 hours than the budget, a backlog slowly, what is new at once."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.observing.budget import DAY_S, Budget
from edge_agent.observing.outbox import Outbox
from edge_agent.observing.pace import BACKLOG_ROWS, Pace, ReplayRules
from edge_agent.observing.room import GIVE_UP_S
from edge_agent.observing.rows import pack
from edge_agent.observing.sender import IN_FLIGHT_ROWS, MOST_PATIENCE, SILENT_S, Sender
from edge_agent.observing.store import Store
from edgeloop.insights import Window, WindowSchema
from edgeloop.protocol import Ack, Insights
from tests.doubles.days import Cable, TurnedClock
from tests.unit.observing.doubles import digest

SCHEMA = WindowSchema(classes=3, features=16, inputs=8, projections=8)
HOUR_S = 3600.0


def window(predictions: int) -> Window:
    made = Window.zero(SCHEMA, release=digest(1), variant="v", provider="p")
    for name in ("classes", "confidence"):
        made.arrays[name][0] = predictions
    made.arrays["counts"][0] = predictions
    made.arrays["inputs"][:, 0] = made.arrays["projections"][:, 1] = predictions
    made.arrays["feature_squares"][:] = predictions
    return made


class Device:
    """An outbox and its sender over a turned clock; the hub acknowledges what it is told to."""

    def __init__(self, folder: Path, rules: ReplayRules | None = None, daily: int | None = None) -> None:
        self.daily = daily
        self.clock, self.cable, self.path = TurnedClock(), Cable(), folder / "agent.db"
        self.rules = rules or ReplayRules(rows_per_s=4.0, bytes_per_s=1e6, jitter_s=60.0)
        self.closed = 0
        self.counted = 0
        self.sizes: deque[tuple[float, int]] = deque()
        self.start()

    def start(self) -> None:
        self.store = Store(self.path)
        self.budget = Budget(self.store, lambda: self.daily, self.clock)
        self.outbox = Outbox(self.store, 1 << 20, lambda _: SCHEMA, room=self.budget.room, wall=self.clock.wall)
        self.pace = Pace(self.outbox, self.budget, self.rules)
        self.sender = Sender(
            self.outbox,
            self.store.epoch,
            self.cable,  # type: ignore[arg-type]
            device="d",
            topic="t",
            channel=lambda: "stable",
            pace=self.pace,
            clock=self.clock,
        )
        self.sender.connected()

    def close(self, count: int = 1) -> None:
        body = pack(window(50))
        with self.store.transaction() as db:
            for _ in range(count):
                self.outbox.append(db, digest(1), "", 50, body)
        self.closed += 50 * count

    def send(self, acknowledge: bool = True) -> list[Insights]:
        """One look of the sender; what went out, acknowledged by the hub unless it is away."""
        self.sender.send_due()
        went = []
        while self.cable.published:
            payload = self.cable.published.popleft()
            self.sizes.append((self.clock.monotonic(), len(payload)))
            went.append(Insights.from_bytes(payload))
        if acknowledge and went:
            self.counted += sum(Window.from_wire(dict(one.window), SCHEMA).predictions for one in went)
            self.sender.acknowledged(Ack(self.store.epoch, max(one.last for one in went)))
        return went

    def most_in_a_day(self) -> int:
        """The largest sum of bytes in any 24 hours."""
        most, held = 0, 0
        begins = deque[tuple[float, int]]()
        for at, size in self.sizes:
            begins.append((at, size))
            held += size
            while begins[0][0] <= at - DAY_S:
                held -= begins.popleft()[1]
            most = max(most, held)
        return most


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.store.close(clean=True)


def test_a_hub_that_acknowledges_nothing_is_silent_and_one_that_has_nothing_to_is_not(device: Device) -> None:
    device.clock.advance(1000)
    assert device.sender.silent_s() == 0.0, "nothing was sent"
    device.close()
    assert device.send(acknowledge=False)
    device.clock.advance(SILENT_S - 1)
    assert device.sender.silent_s() == 0.0, "it may be busy"
    device.send(acknowledge=False)
    device.clock.advance(20)
    assert device.sender.silent_s() == SILENT_S + 19, "sending again is no word of the hub"
    device.cable.connected = False
    assert device.sender.silent_s() == 0.0, "the broker is away"
    device.cable.connected = True
    device.sender.connected()
    device.send(acknowledge=False)
    assert device.sender.silent_s() == 0.0, "a new line is a new chance"
    device.clock.advance(SILENT_S)
    assert device.sender.silent_s() == SILENT_S
    device.send()
    assert device.sender.silent_s() == 0.0 and device.counted == device.closed
    device.clock.advance(1000)
    assert device.sender.silent_s() == 0.0, "it has acknowledged everything"


# -- the budget --------------------------------------------------------------------------------------------------------


def test_no_24_hours_see_more_than_the_budget_and_every_count_arrives(tmp_path: Path) -> None:
    device = Device(tmp_path, daily=20_000)
    for hour in range(56):
        for _ in range(2):
            device.close(4)
            device.clock.advance(HOUR_S / 2)
            device.send()
        if hour == 30:
            device.store.close(clean=False)
            device.start()
    assert 0.6 * 20_000 < device.most_in_a_day() <= 20_000
    # Resolution was given up, and no count: what still waits is at most what may leave in time.
    waits = device.outbox.state()
    assert waits.unsent_bytes <= device.budget.room(GIVE_UP_S)
    device.daily = None
    for _ in range(10):
        device.send()
    assert device.counted == device.closed
    device.close()
    assert device.outbox.state().level == 0, "with room again, what is new is whole"


def test_a_quarter_may_leave_at_once_and_the_rest_evenly(device: Device) -> None:
    device.daily = 80_000
    assert device.budget.wait_s(20_000) == 0
    device.budget.spend(20_000)
    assert device.budget.wait_s(2_500) == pytest.approx(HOUR_S)
    assert device.budget.room(HOUR_S) == pytest.approx(2_500), "what may leave within an hour"
    device.clock.advance(2 * HOUR_S)
    assert device.budget.wait_s(5_000) == pytest.approx(0.0) and device.budget.room(HOUR_S) == pytest.approx(7_500)
    device.clock.advance(30 * DAY_S)
    assert device.budget.room(HOUR_S) == pytest.approx(22_500), "what was not used does not add up for ever"
    # What is larger than the bucket leaves when it is full, and is paid off afterwards.
    assert device.budget.wait_s(50_000) == 0
    device.budget.spend(50_000)
    assert device.budget.wait_s(1) > 11 * HOUR_S


@pytest.mark.parametrize(("clock_s", "left"), [(0.0, 0.0), (2 * HOUR_S, 5_000.0), (-1e9, 0.0), (1e9, 0.0)])
def test_what_was_spent_is_remembered_whatever_the_clock_says_after_a_restart(
    device: Device, clock_s: float, left: float
) -> None:
    device.daily = 80_000
    device.budget.spend(20_000)
    device.budget.save()
    device.clock.set_wall(device.clock.wall() + clock_s)
    again = Budget(device.store, lambda: device.daily, device.clock)
    assert again.room(HOUR_S) == pytest.approx(left + 2_500, abs=1.0)
    assert again.today == (20_000 if abs(clock_s) < DAY_S else 0)


def test_without_a_budget_bytes_are_counted_and_nothing_waits(device: Device) -> None:
    device.close(3)
    device.send()
    assert device.budget.today == sum(size for _, size in device.sizes) > 0
    assert not device.budget.limited and device.budget.room(HOUR_S) == float("inf")
    device.clock.advance(DAY_S)
    assert device.budget.today == 0


# -- a backlog ---------------------------------------------------------------------------------------------------------


def replay(device: Device, seconds: float, step_s: float = 0.1) -> list[tuple[float, int, int]]:
    """(second, first number, predictions) of all that goes out."""
    began, found = device.clock.monotonic(), []
    while device.clock.monotonic() - began < seconds:
        for one in device.send():
            at = device.clock.monotonic() - began
            found.append((at, one.first, Window.from_wire(dict(one.window), SCHEMA).predictions))
        device.clock.advance(step_s)
    return found


def test_weeks_of_windows_leave_at_a_bounded_rate_after_a_random_wait(tmp_path: Path) -> None:
    waits = []
    for number in range(6):
        random.seed(number)
        device = Device(tmp_path / str(number))
        device.cable.connected = False
        device.close(60)
        device.send()
        device.cable.connected = True
        device.sender.connected()
        found = replay(device, 40.0)
        assert len(found) == 60 and device.counted == device.closed
        assert [first for _, first, _ in found] == list(range(1, 61))
        waits.append(found[0][0])
        for start in range(40):
            assert sum(start <= at < start + 1 for at, _, _ in found) <= 6, "4 a second, and a portion of 2"
        assert not device.pace.replaying
        device.store.close(clean=True)
    assert max(waits) < 15.3, "full jitter: up to the time that the backlog takes"
    assert max(waits) - min(waits) > 5.0


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    device = Device(tmp_path, ReplayRules(rows_per_s=1000.0, bytes_per_s=2000.0, jitter_s=0.0))
    device.close(40)
    device.sender.connected()
    found = replay(device, 30.0)
    size = device.sizes[0][1]
    assert len(found) > 20
    for start in range(25):
        assert sum(start <= at < start + 1 for at, _, _ in found) * size <= 2000 + 2 * size
    device.store.close(clean=True)


def test_what_is_closed_meanwhile_goes_first(device: Device) -> None:
    device.close(100)
    device.sender.connected()
    device.send()
    for number in range(5):
        device.close()
        before, newest = device.outbox.state().unsent_rows, device.outbox.state().newest
        assert device.send(), "it leaves with the next look"
        assert device.outbox.next_size(newest - 1) is None and device.outbox.state().unsent_rows == before - 1
        device.clock.advance(3.0)
        device.send()
        assert number > 0 or device.pace.replaying
    replay(device, 100.0, 0.5)
    assert device.outbox.state().rows == 0 and device.counted == device.closed
    assert device.outbox.highest_sent() == 105


def test_a_few_windows_are_no_backlog(device: Device) -> None:
    device.close(BACKLOG_ROWS)
    device.sender.connected()
    assert len(device.send()) == BACKLOG_ROWS
    assert not device.pace.replaying


def test_a_hub_that_never_answers_is_asked_ever_less_often(device: Device) -> None:
    device.close(4)
    times = []
    for _ in range(1200):
        if device.send(acknowledge=False):
            times.append(device.clock.monotonic())
        device.clock.advance(1.0)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 7 <= pauses[0] <= 13 * 2 and max(pauses) >= 0.75 * 10 * MOST_PATIENCE - 1
    assert len(device.outbox.sent_rows(0, 99, 1 << 20)) == 4 <= IN_FLIGHT_ROWS
    assert len(times) < 20
