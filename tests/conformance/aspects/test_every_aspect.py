"""The conformance kit of aspects: sums only, fixed shapes, no state, honest windows pass, spoiled ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.insights import InsightsError, Window
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.base import Aspect
from tests.conformance.aspects.kit import APPLIED, BATCH, PROFILE, ROWS, SPOILS, fill, own, same

every_aspect = pytest.mark.parametrize("aspect", APPLIED, ids=[aspect.name for aspect in APPLIED])


def test_every_array_belongs_to_one_aspect_and_the_order_is_fixed() -> None:
    names = [name for aspect in ASPECTS for name in aspect.arrays(PROFILE.schema)]
    assert names == list(PROFILE.schema.arrays)
    assert len(set(names)) == len(names)
    assert len({aspect.name for aspect in ASPECTS}) == len(ASPECTS)


@every_aspect
def test_the_arrays_are_counts_or_sums_of_the_announced_shape(aspect: Aspect) -> None:
    window = fill()
    for name, spec in aspect.arrays(PROFILE.schema).items():
        assert (window.arrays[name].shape, window.arrays[name].dtype) == (spec.shape, np.dtype(spec.dtype))
        assert spec.dtype in ("int64", "float64")


@every_aspect
def test_it_counts_something(aspect: Aspect) -> None:
    assert any(array.any() for array in own(aspect, fill()).values())


@every_aspect
def test_parts_add_up_to_the_whole(aspect: Aspect) -> None:
    parts = Window.zero(PROFILE.schema)
    for start in range(0, ROWS, 37):
        parts = fill(slice(start, start + 37)).merge(parts)
    whole = fill()
    # Health is sampled by time and not by row: each part numbers its samples afresh.
    names = [name for name in own(aspect, whole) if name != "health_sum"]
    assert all(same(parts.arrays[name], whole.arrays[name]) for name in names)


@every_aspect
def test_counting_into_one_window_is_merging_two(aspect: Aspect) -> None:
    one = fill(slice(0, 40))
    together = fill(slice(40, ROWS), one.copy())
    merged = one.merge(fill(slice(40, ROWS)))
    for name, array in own(aspect, together).items():
        assert same(array, merged.arrays[name])


@every_aspect
def test_the_order_of_rows_does_not_matter(aspect: Aspect) -> None:
    shuffled = fill(np.random.default_rng(0).permutation(ROWS))
    for name, array in own(aspect, fill()).items():
        assert same(array, shuffled.arrays[name])


@every_aspect
def test_no_rows_change_nothing(aspect: Aspect) -> None:
    window = fill()
    before = {name: array.copy() for name, array in own(aspect, window).items()}
    fill(slice(0, 0), window)
    assert all(np.array_equal(before[name], array) for name, array in own(aspect, window).items())


@every_aspect
def test_it_keeps_no_state_and_leaves_its_inputs(aspect: Aspect) -> None:
    before = [array.copy() for array in BATCH]
    state = dict(vars(aspect))
    first, second = fill(), fill()
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in aspect.arrays(PROFILE.schema))
    assert all(np.array_equal(a, b) for a, b in zip(before, BATCH, strict=True))
    assert vars(aspect) == state


@every_aspect
def test_honest_windows_pass_its_check(aspect: Aspect) -> None:
    windows = [Window.zero(PROFILE.schema), fill(slice(0, 1)), fill()]
    windows.append(windows[1].merge(windows[2]))
    for window in windows:
        aspect.check(window.arrays)


@every_aspect
def test_sums_that_no_rows_have_do_not_pass(aspect: Aspect) -> None:
    window = fill()
    SPOILS[aspect.name](window.arrays)
    with pytest.raises(InsightsError):
        aspect.check(window.arrays)
    with pytest.raises(InsightsError):
        Window.from_wire(window.to_wire(), PROFILE.schema)


@every_aspect
def test_it_survives_the_wire(aspect: Aspect) -> None:
    window = fill()
    read = Window.from_wire(window.to_wire(), PROFILE.schema)
    assert all(np.array_equal(array, read.arrays[name]) for name, array in own(aspect, window).items())


@every_aspect
def test_it_can_do_without_features_and_without_numbers_as_inputs(aspect: Aspect) -> None:
    from edgeloop.insights import Observer, Profile

    words = np.array(["word"] * ROWS)
    plain = Profile.fit(words, BATCH[1], None)
    window = Window.zero(plain.schema, "sha256:b")
    Observer(plain).observe(window, words, BATCH[1], None, BATCH[3])
    Observer(plain).feedback(window, None, BATCH[4], BATCH[4], BATCH[5])
    aspect.check(window.arrays)
    assert Window.from_wire(window.to_wire(), plain.schema) == window
