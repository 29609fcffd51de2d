import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeloop.sampling.policy import SamplesLimits, SamplesPolicy
from edgeloop.sampling.steering import DAY_S, Steering

_ALL = {"random": 1.0}


def _kept(policy: SamplesPolicy, size: int, rows_per_s: float, hours: int, seed: int = 0) -> list[float]:
    """When samples are kept, in seconds, under steady traffic."""
    steering, random, found = Steering(), np.random.default_rng(seed), []
    for minute in range(hours * 60):
        now = minute * 60.0
        rows = int(random.poisson(rows_per_s * 60))
        steering.seen(policy, rows, now)
        for _ in range(int(random.binomial(rows, steering.share(policy)))):
            if steering.fits(policy, size):
                steering.kept(size)
                found.append(now)
    return found


@pytest.mark.parametrize("rows_per_s", [0.02, 1.0, 50.0])
def test_a_days_samples_are_spread_over_the_day_and_never_more(rows_per_s: float) -> None:
    policy = SamplesPolicy(_ALL, per_day=200)
    times = np.array(_kept(policy, 1000, rows_per_s, 48))
    for start in np.arange(0, DAY_S, 3600):
        assert ((times >= start) & (times < start + DAY_S)).sum() <= 200
    wanted = min(200, rows_per_s * DAY_S)
    second = ((times >= DAY_S) & (times < 2 * DAY_S)).sum()
    assert second >= 0.6 * wanted
    assert len({int(time // 3600) for time in times if time >= DAY_S}) >= 20, "in nearly every hour"


def test_the_budget_of_bytes_holds_where_it_is_the_smaller_one() -> None:
    policy = SamplesPolicy(_ALL, per_day=1000, bytes_per_day=100_000)
    times = _kept(policy, 5000, 1.0, 24)
    assert 12 <= len(times) <= 20


def test_a_sample_that_no_bucket_holds_leaves_when_it_is_full_and_once_a_day() -> None:
    policy = SamplesPolicy(_ALL, per_day=1, bytes_per_day=1000)
    assert len(_kept(policy, 900, 1.0, 23)) == 1
    assert _kept(policy, 1001, 1.0, 23) == []
    three = SamplesPolicy(_ALL, per_day=3, bytes_per_day=1 << 30)
    assert 1 <= len(_kept(three, 900, 1.0, 24)) <= 3


def test_what_was_spent_outlives_a_restart_and_a_clock_that_jumps_frees_nothing() -> None:
    policy = SamplesPolicy(_ALL, per_day=8)
    steering = Steering()
    steering.seen(policy, 1, 1000.0)
    for _ in range(2):
        steering.kept(10)
    assert steering.share(policy) == 0
    again = Steering(steering.state())
    assert again.share(policy) == 0
    for now in (0.0, 5.0, 900.0):
        again.seen(policy, 1, now)
        assert again.share(policy) == 0, "the clock went back"
    again.seen(policy, 1, 4e9)
    assert again.share(policy) > 0
    odd = {"samples/spent": float("nan"), "at": float("inf"), "bytes/hour/x": 3.0}
    assert Steering(odd).state() == {"size": 0, "samples/spent": 0, "bytes/spent": 0}


@settings(deadline=None, max_examples=100)
@example([(0.0, 1, 1), (86_399.0 / 2, 1, 5)], 4, 5)
@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 50), st.integers(0, 5000)), max_size=40),
    st.integers(0, 30),
    st.integers(0, 20_000),
)
def test_no_24_hours_see_more_than_the_budgets(
    steps: list[tuple[float, int, int]], per_day: int, bytes_per_day: int
) -> None:
    policy = SamplesPolicy(_ALL, per_day=per_day, bytes_per_day=bytes_per_day)
    steering, now, left = Steering(), 0.0, []
    for elapsed, rows, size in steps:
        now += elapsed
        steering.seen(policy, rows, now)
        assert 0.0 <= steering.share(policy) <= 1.0
        for _ in range(rows):
            if steering.fits(policy, size):
                steering.kept(size)
                left.append((now, size))
    for start, _ in left:
        day = [size for at, size in left if start <= at < start + DAY_S]
        assert len(day) <= per_day and sum(day) <= bytes_per_day


def test_the_owner_makes_it_only_stricter() -> None:
    asked = SamplesPolicy(_ALL, per_day=10, bytes_per_day=100)
    assert not asked.within(SamplesLimits()).on
    allowed = asked.within(SamplesLimits(consent=True, per_day=5, bytes_per_day=1000))
    assert allowed.on and (allowed.per_day, allowed.bytes_per_day) == (5, 100)
