"""What a newer sender adds is kept, bounded, added up and written on; an update then reads it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from edgeloop.insights import InsightsError, Window
from edgeloop.insights.newer import MAX_ARRAY_SIZE, MAX_ARRAYS
from tests.doubles.wired import arrays_in, with_arrays
from tests.unit.insights.worlds import observed, profile, random_batch

SCHEMA = profile().schema
WINDOW = observed(random_batch(60, seed=2))


def sent(**arrays: Any) -> Window:
    """A window as an older reader sees it that has these arrays as well."""
    return Window.from_wire(with_arrays(WINDOW.to_wire(), **arrays), SCHEMA)


def counts(*values: int) -> Any:
    return np.array(values, np.int64)


def sums(*values: float) -> Any:
    return np.array(values, np.float64)


def test_unknown_arrays_are_kept_and_written_on() -> None:
    window = sent(energy=counts(7, 8), heat=sums(1.5), late=counts(*[0] * 300, 5, *[0] * 161))
    assert {name: array.tolist() for name, array in window.unknown.items()} | {"late": 0} == {
        "energy": [7, 8], "heat": [1.5], "late": 0
    }  # fmt: skip
    assert window.unknown["late"].sum() == window.unknown["late"][300] == 5 and len(window.unknown["late"]) == 462
    again = Window.from_bytes(window.to_bytes(), SCHEMA)
    assert again == window and again.to_wire() == window.to_wire()
    assert arrays_in(window.to_wire())["late"].tolist() == window.unknown["late"].tolist()
    assert window != WINDOW and window.copy() == window and window.only(window.arrays).unknown == {}


def test_they_add_up() -> None:
    merged = sent(energy=counts(7, 8), heat=sums(1.5)).merge(sent(energy=counts(1, 0), heat=sums(-1.0)))
    assert merged.unknown["energy"].tolist() == [8, 8] and merged.unknown["heat"].tolist() == [0.5]


def test_every_order_gives_the_same_also_where_lengths_and_types_differ() -> None:
    windows = [
        sent(x=counts(1, 2)),
        sent(x=counts(1, 2, 3)),
        sent(x=sums(4, 5, 6)),
        sent(x=counts(9, 9, 9), y=counts(1)),
    ]
    found = set()
    for a, b, c, d in itertools.permutations(windows):
        found.add(a.merge(b).merge(c.merge(d)).to_bytes())
        found.add(a.merge(b.merge(c)).merge(d).to_bytes())
    assert len({Window.from_bytes(data, SCHEMA).unknown["x"].tobytes() for data in found}) == 1
    assert Window.from_bytes(found.pop(), SCHEMA).unknown["x"].tolist() == [10, 11, 12]


def test_too_many_names_leave_out_the_same_ones_in_every_order() -> None:
    few = {f"a{number:02}": counts(1) for number in range(MAX_ARRAYS)}
    more = {f"a{number:02}": counts(1) for number in range(8, 8 + MAX_ARRAYS)}
    merged, other = sent(**few).merge(sent(**more)), sent(**more).merge(sent(**few))
    assert list(merged.unknown) == list(other.unknown) == list(few)
    assert merged.unknown["a15"].tolist() == [2]


@pytest.mark.parametrize(
    "odd",
    [
        sums(*[1.0] * (MAX_ARRAY_SIZE + 1)),
        sums(float("nan")),
        sums(float("inf")),
        sums(1e300),
        counts(*[1] * (MAX_ARRAY_SIZE + 1)),
        counts(1, *[0] * (1 << 17)),
        counts(1 << 50),
    ],
    ids=lambda odd: f"{odd.dtype} {odd.size} {odd[0]}",
)
def test_what_cannot_be_added_is_left_out_and_costs_nothing_else(odd: Any) -> None:
    assert sent(odd=odd) == WINDOW


def test_a_sum_never_wraps_around() -> None:
    window = sent(energy=counts(1))
    window.unknown["energy"][0] = 1 << 62
    with pytest.raises(InsightsError, match="energy"):
        window.merge(window)
