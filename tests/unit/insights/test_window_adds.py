"""A window is a sum: merging is associative and commutative, and has a zero."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.insights import InsightsError, Window, WindowSchema
from tests.unit.insights.worlds import observed, profile, random_batch

BATCH = random_batch(120, seed=3)


def close(one: Window, other: Window) -> bool:
    """Counts equal; float64 sums equal but for the rounding of another order."""
    return all(
        np.array_equal(a, b) if a.dtype.kind == "i" else np.allclose(a, b, rtol=1e-12, atol=1e-12)
        for a, b in ((one.arrays[name], other.arrays[name]) for name in one.schema.arrays)
    )


@given(st.lists(st.integers(0, 120), min_size=2, max_size=5).map(sorted), st.randoms())
@settings(max_examples=30, deadline=None)
def test_any_split_in_any_order_gives_the_same_window(cuts: list[int], random: Any) -> None:
    bounds = [0, *cuts, 120]
    parts = [observed(BATCH.part(a, b)) for a, b in itertools.pairwise(bounds)]
    random.shuffle(parts)
    total = Window.zero(profile().schema)
    for part in parts:
        total = total.merge(part)
    whole = observed(BATCH)
    whole.arrays["counts"][1] *= len(parts)
    whole.arrays["counts"][3] *= len(parts)
    whole.arrays["health_samples"] *= len(parts)
    whole.arrays["health_sum"] *= len(parts)
    assert close(total, whole)


def test_merging_commutes_to_the_last_bit() -> None:
    one, other = observed(BATCH.part(0, 50)), observed(BATCH.part(50, 120))
    assert one.merge(other) == other.merge(one)


def test_the_zero_changes_nothing() -> None:
    window = observed(BATCH)
    zero = Window.zero(window.schema)
    assert zero.merge(window) == window == window.merge(zero)
    assert zero.merge(zero) == zero


def test_merging_leaves_both_as_they_were() -> None:
    one, other = observed(BATCH.part(0, 50)), observed(BATCH.part(50, 120))
    before = one.copy(), other.copy()
    one.merge(other).arrays["counts"] += 1
    assert (one, other) == before


def test_start_end_variant_and_provider() -> None:
    schema = profile().schema
    one = Window.zero(schema, "sha256:a", "cpu-int8", "CPU", 10.0, 20.0)
    other = Window.zero(schema, "sha256:a", "cpu-fp32", "CPU", 5.0, 12.0)
    merged = one.merge(other)
    assert (merged.start, merged.end, merged.variant, merged.provider) == (5.0, 20.0, "mixed", "CPU")


def test_windows_of_different_releases_do_not_merge() -> None:
    schema = profile().schema
    with pytest.raises(InsightsError, match="different releases"):
        Window.zero(schema, "sha256:a").merge(Window.zero(schema, "sha256:b"))


def test_windows_of_different_shapes_do_not_merge() -> None:
    with pytest.raises(InsightsError, match="different shapes"):
        Window.zero(profile().schema).merge(Window.zero(WindowSchema(3, 0, 1, 0)))


def test_a_count_never_wraps_around() -> None:
    window = Window.zero(profile().schema)
    window.arrays["counts"][0] = 1 << 62
    with pytest.raises(InsightsError, match="counts"):
        window.merge(window)


def test_unknown_fields_merge_in_any_order() -> None:
    schema = profile().schema
    windows = [Window.zero(schema, "sha256:a") for _ in range(3)]
    for window, value in zip(windows, ({"x": 1}, {"x": 2, "y": b"a"}, {"x": 1, "z": [1]}), strict=True):
        window.extra = value
    a, b, c = windows
    assert a.merge(b).merge(c).extra == c.merge(a).merge(b).extra == {"x": 2, "y": b"a", "z": [1]}


def test_properties_name_the_counts() -> None:
    window = observed(BATCH)
    assert (window.predictions, window.errors, window.feedback, window.escalations) == (120, 2, 120, 1)
    assert window.nonfinite == 0
