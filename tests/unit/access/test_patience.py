"""Rates and lock-outs, with a clock to turn."""

from __future__ import annotations

from cloud_hub.access.patience import BURST_S, FIRST_LOCK_S, FORGIVEN_S, GUESSES, MOST_CALLERS, Lockout, Rate, network
from tests.unit.hub.kit import Clock


def test_a_rate_lets_a_burst_through_and_then_its_share() -> None:
    clock = Clock()
    rate = Rate(2.0, clock=clock)
    assert [rate.wait_s("a") for _ in range(int(2 * BURST_S))] == [0.0] * int(2 * BURST_S)
    assert 0 < rate.wait_s("a") <= 0.5 and rate.wait_s("b") == 0.0
    clock.now += 0.5
    assert rate.wait_s("a") == 0.0 and rate.wait_s("a") > 0


def test_a_rate_below_one_in_ten_seconds_still_lets_somebody_through() -> None:
    clock = Clock()
    rate = Rate(0.01, clock=clock)
    assert rate.wait_s("a") == 0.0 < rate.wait_s("a")
    clock.now += 100.0
    assert rate.wait_s("a") == 0.0


def test_no_rate_is_no_limit() -> None:
    rate = Rate(0.0)
    assert all(rate.wait_s("a") == 0.0 for _ in range(1000))


def test_callers_are_forgotten_before_memory_is_full() -> None:
    rate = Rate(1.0)
    for number in range(MOST_CALLERS + 100):
        rate.wait_s(str(number))
    assert len(rate._buckets._values) == MOST_CALLERS


def test_guessing_has_to_wait_longer_each_time() -> None:
    clock = Clock()
    lockout = Lockout(clock=clock)
    for _ in range(GUESSES):
        assert lockout.wait_s("10.0.0.1", "wrong") == 0.0
        lockout.wrong("10.0.0.1")
    assert lockout.wait_s("10.0.0.1", "wrong") == FIRST_LOCK_S
    assert lockout.wait_s("10.0.0.2", "wrong") == 0.0, "somebody else"
    clock.now += FIRST_LOCK_S
    assert lockout.wait_s("10.0.0.1", "wrong") == 0.0
    lockout.wrong("10.0.0.1")
    assert lockout.wait_s("10.0.0.1", "wrong") == 2 * FIRST_LOCK_S
    clock.now += FORGIVEN_S + 1
    lockout.wrong("10.0.0.1")
    assert lockout.wait_s("10.0.0.1", "wrong") == 0.0


def test_who_was_known_before_does_not_wait_for_a_guesser_next_door() -> None:
    lockout = Lockout(clock=Clock())
    lockout.right("good")
    for _ in range(GUESSES):
        lockout.wrong("10.0.0.1")
    assert lockout.wait_s("10.0.0.1", "good") == 0.0 < lockout.wait_s("10.0.0.1", "guess")


def test_one_guesser_has_a_whole_network_of_ipv6() -> None:
    assert network("2001:db8::1") == network("2001:db8::2") != network("2001:db8:0:1::1")
    assert network("::ffff:10.0.0.1") == network("10.0.0.1") == "10.0.0.1"
    assert network("unknown") == "unknown"
