"""Budgets: of an hour, of a day, of bytes, over restarts and with clocks that jump."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from edgeloop.cascade.budget import Budget
from edgeloop.cascade.policy import EscalationPolicy

START = 1_800_000_000.0 // 86_400 * 86_400
POLICY = EscalationPolicy(mode="async")


def test_without_a_budget_there_is_room_for_any_number() -> None:
    assert Budget.of(POLICY).room(START, 1000) == (math.inf, math.inf)


def test_an_hour_is_spent_and_comes_again() -> None:
    budget = Budget.of(replace(POLICY, per_hour=10))
    budget.spend(START, 7, 7000)
    assert budget.room(START + 1800, 1000) == (3, 3 / 1800)
    budget.spend(START + 1800, 3, 3000)
    assert budget.room(START + 3599, 1000).rows == 0
    assert budget.room(START + 3600, 1000).rows == 10


def test_a_day_bounds_its_hours_and_bytes_bound_rows() -> None:
    budget = Budget.of(replace(POLICY, per_hour=10, per_day=15, bytes_per_day=12_000))
    budget.spend(START, 10, 10_000)
    assert budget.room(START + 3600, 1000).rows == 2
    assert budget.room(START + 3600, 10).rows == 5
    assert budget.room(START + 86_400, 1000).rows == 10


def test_a_clock_that_goes_back_opens_no_new_hour() -> None:
    budget = Budget.of(replace(POLICY, per_hour=10))
    budget.spend(START, 10, 0)
    assert budget.room(0.0, 1).rows == 0
    budget.spend(0.0, 1, 0)
    assert budget.room(START + 10, 1).rows == 0


def test_what_was_spent_outlives_a_restart_and_a_new_policy() -> None:
    budget = Budget.of(replace(POLICY, per_day=10))
    budget.spend(START, 4, 400)
    again = Budget.of(replace(POLICY, per_day=6), budget.plain())
    assert again.room(START + 5, 100).rows == 2


@pytest.mark.parametrize("plain", [{}, {"hour": 3}, {"hour": [1, 2]}, {"hour": ["a", 0, 0]}, {"day": [1, -5, 0]}])
def test_what_no_budget_told_counts_as_nothing(plain: dict[str, Any]) -> None:
    assert Budget.of(replace(POLICY, per_day=10), plain).room(START, 1).rows == 10
