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


def test_segments_merge_with_their_like() -> None:
    schema = profile().schema
    left, right = (Window.zero(schema, "sha256:a", segment=segment) for segment in ("left", "right"))
    left.arrays["counts"][0], right.arrays["counts"][0] = 1, 2
    assert left.merge(left).segment == "left" and Window.from_wire(left.to_wire(), schema).segment == "left"
    assert "segment" not in left.without_segment().to_wire()
    with pytest.raises(InsightsError, match="different segments"):
        left.merge(right)
    with pytest.raises(InsightsError, match="without_segment"):
        left.merge(Window.zero(schema, "sha256:a"))
    both = left.without_segment().merge(right.without_segment())
    assert (both.segment, both.predictions, left.segment) == ("", 3, "left")


@pytest.mark.parametrize("segment", ["", "left"])
def test_the_zero_has_no_segment_and_merges_with_any(segment: str) -> None:
    window = observed(BATCH)
    window.segment = segment
    zero = Window.zero(window.schema)
    assert zero.merge(window) == window == window.merge(zero)


def test_what_was_not_counted_takes_no_room() -> None:
    one, other = Window.zero(profile().schema, "sha256:a"), Window.zero(profile().schema, "sha256:a")
    one.arrays["classes"][0] = 1
    other.arrays["latency"][3] = 2
    merged = one.merge(other)
    assert set(merged.arrays) == {"classes", "latency"}
    assert not merged.arrays["head_fit_gram"].any() and merged == other.merge(one)
    merged.arrays["classes"][0] = 5
    assert one.arrays["classes"][0] == 1, "a sum shares no memory with its parts"


def test_a_part_of_a_window() -> None:
    window = observed(BATCH)
    part = window.only(("counts", "classes"))
    assert set(part.arrays) == {"counts", "classes"} and part.release == window.release
    assert np.array_equal(part.arrays["classes"], window.arrays["classes"])


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
