"""A teacher's desk is bounded, serves who waits first, and rests after failures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud_hub.teachers.breaker import FAILURES, REST_S, Breaker
from cloud_hub.teachers.port import Busy, Malformed, Opinion, Outcome, Question, Unavailable, Unfit
from tests.unit.teachers.kit import Counter, Told, until


@pytest.fixture
def counter() -> Iterator[Counter]:
    made = Counter(Told())
    yield made
    made.teacher.go.set()
    made.desk.close(10)
    assert made.teacher.closed or not made.teacher.asked


def occupied(counter: Counter) -> None:
    """The teacher thinks about a first case until it is let go."""
    counter.teacher.go.clear()
    counter.put("first")
    until(lambda: counter.teacher.asked)


def test_a_case_is_answered(counter: Counter) -> None:
    counter.put("one")
    assert counter.heard("one") == Opinion(7, 0.9)
    assert until(lambda: counter.desk.state().outcomes) == {"answered": 1}


def test_who_waits_is_served_before_who_does_not(counter: Counter) -> None:
    occupied(counter)
    for name, wait in (("later", False), ("now", True), ("last", False)):
        counter.put(name, wait=wait)
    counter.teacher.go.set()
    counter.heard("last")
    assert list(counter.outcomes) == ["first", "now", "later", "last"]


def test_without_room_the_oldest_that_nobody_waits_for_gives_way(counter: Counter) -> None:
    occupied(counter)
    for name in ("a", "b", "c", "d", "e"):
        counter.put(name)
    assert isinstance(counter.outcomes["a"], Busy) and str(counter.outcomes["a"]) == "no room"
    assert counter.desk.state().waiting == 4
    for name in ("f", "g", "h", "i"):
        counter.put(name, wait=True)
    assert [name for name in "abcde" if name in counter.outcomes] == ["a", "b", "c", "d", "e"]
    counter.put("too many", wait=True)
    assert isinstance(counter.outcomes["too many"], Busy)  # whoever waits is pushed out by nobody


def test_bytes_are_bounded_too(counter: Counter) -> None:
    occupied(counter)
    counter.put("small", size=600)
    counter.put("large", size=900)
    assert "small" in counter.outcomes and "large" not in counter.outcomes
    counter.put("huge", size=1001)
    assert isinstance(counter.outcomes["huge"], Busy)
    assert "large" not in counter.outcomes  # what could not help was not pushed out


def test_what_came_too_late_is_not_asked(counter: Counter) -> None:
    occupied(counter)
    counter.put("late", patience_s=5.0)
    counter.now += 6.0
    counter.teacher.go.set()
    assert str(counter.heard("late")) == "no time is left"
    assert counter.teacher.asked == [1]


def test_several_are_asked_at_once(counter: Counter) -> None:
    counter.teacher.batch = 3
    occupied(counter)
    for name in ("a", "b", "c", "d"):
        counter.put(name)
    counter.teacher.go.set()
    counter.heard("d")
    assert counter.teacher.asked == [1, 3, 1]


@pytest.mark.parametrize("fault", [Unavailable("it is down"), Malformed("it says nonsense"), KeyError("a defect")])
def test_it_rests_after_failures_and_is_tried_again(counter: Counter, fault: Exception) -> None:
    def fails(_question: Question) -> Outcome:
        raise fault

    counter.teacher.outcome = fails
    for number in range(FAILURES):
        counter.put(f"{number}")
        counter.heard(f"{number}")
    until(lambda: counter.desk.state().state == "open")
    counter.put("resting")
    assert "rests after failures" in str(counter.outcomes["resting"])
    assert counter.teacher.asked == [1] * FAILURES
    counter.now += REST_S[0] + 0.1
    counter.teacher.outcome = lambda _question: Opinion(1)
    counter.put("again")
    assert counter.heard("again") == Opinion(1)
    assert until(lambda: counter.desk.state().state == "closed")


def test_what_does_not_fit_speaks_not_against_the_teacher(counter: Counter) -> None:
    counter.teacher.outcome = lambda _question: Unfit("another shape")
    for number in range(2 * FAILURES):
        counter.put(f"{number}")
        assert isinstance(counter.heard(f"{number}"), Unfit)
    assert counter.desk.state().state == "closed"


def test_closing_gives_back_what_waits(counter: Counter) -> None:
    occupied(counter)
    counter.put("waits")
    counter.desk.close()
    assert "was taken away" in str(counter.outcomes["waits"])
    counter.put("comes late")
    assert "was taken away" in str(counter.outcomes["comes late"])
    counter.teacher.go.set()
    assert counter.heard("first") == Opinion(7, 0.9)  # what was under way is finished


def test_whoever_ends_last_frees_what_the_teacher_holds(counter: Counter) -> None:
    occupied(counter)
    counter.desk.close()  # as when a teacher is changed: nobody waits for what is under way
    assert not counter.teacher.closed
    counter.teacher.go.set()
    assert until(lambda: counter.teacher.closed)


def test_a_breaker_lets_one_through_when_it_has_rested() -> None:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.admits(0.0)
        breaker.went_wrong(0.0)
    assert not breaker.admits(REST_S[0] / 2)
    assert breaker.admits(REST_S[0]) and not breaker.admits(REST_S[0])
    breaker.went_wrong(REST_S[0])
    assert breaker.until == pytest.approx(REST_S[0] + 2 * REST_S[0])
    for _ in range(100):
        breaker.went_wrong(0.0)
    assert breaker.until == REST_S[1]
    breaker.went_well()
    assert breaker.admits(0.0) and breaker.state(0.0) == "closed"


def test_a_breaker_waits_as_long_as_it_is_told_to() -> None:
    breaker = Breaker()
    breaker.went_wrong(0.0, retry_after_s=42.0)
    assert breaker.state(41.0) == "open" and breaker.state(42.0) == "trying"
    breaker.went_wrong(0.0, retry_after_s=1e9)
    assert breaker.until == 3600.0  # nobody rests for ever on a teacher's word
