"""A wrong clock is noted: 1970, a jump, a clock that was behind at the start. Counts do not depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.observing.clocks import MADE, ClockNotes
from edge_agent.observing.store import Store
from tests.doubles.days import TurnedClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "agent.db")
    yield made
    made.close(clean=True)


def test_a_clock_that_runs_is_no_trouble(store: Store) -> None:
    clock = TurnedClock()
    notes = ClockNotes(store, clock)
    for _ in range(3):
        clock.advance(1e6)
        assert notes.trouble() == ""
    notes.remember()
    clock.set_wall(clock.wall() + 30.0)
    assert notes.trouble() == "", "a time server moves it a little"
    assert ClockNotes(store, clock).trouble() == ""


@pytest.mark.parametrize("wall", [0.0, -1e6, float(MADE - 1)])
def test_a_clock_from_before_the_agent_is_said_until_it_is_set(store: Store, wall: float) -> None:
    clock = TurnedClock(wall)
    notes = ClockNotes(store, clock)
    assert "before this agent was made" in notes.trouble()
    clock.set_wall(1.8e9)
    assert "jumped by +" in notes.trouble() and "2027-01-15" in notes.trouble()


@pytest.mark.parametrize("wall", [4e9, 1e18])
def test_a_jump_into_the_future_and_back_is_said(store: Store, wall: float) -> None:
    clock = TurnedClock()
    notes = ClockNotes(store, clock)
    clock.set_wall(wall)
    assert "jumped by +" in notes.trouble()
    clock.set_wall(1.8e9)
    assert "jumped by -" in notes.trouble()


def test_a_clock_that_was_behind_at_the_start_is_said(store: Store) -> None:
    clock = TurnedClock()
    ClockNotes(store, clock).remember()
    clock.set_wall(clock.wall() - 7200.0)
    assert "behind the 2027-01-15" in ClockNotes(store, clock).trouble()
