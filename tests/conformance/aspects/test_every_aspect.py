"""The conformance kit of aspects: sums only, fixed shapes, no state, honest windows pass, spoiled ones do not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeloop.insights import InsightsError, Observer, Profile, Window
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.base import Aspect
from tests.conformance.aspects.kit import ROWS, same, shown, spoil, worlds

every_aspect = pytest.mark.parametrize(
    ("aspect", "name"), shown(), ids=[f"{aspect.name}-{name}" for aspect, name in shown()]
)


def test_every_array_belongs_to_one_aspect_and_the_order_is_fixed() -> None:
    for world in worlds().values():
        names = [name for aspect in ASPECTS for name in aspect.arrays(world.profile.schema)]
        assert names == list(world.profile.schema.arrays)
        assert len(set(names)) == len(names)
    assert len({aspect.name for aspect in ASPECTS}) == len(ASPECTS)


def test_every_aspect_is_shown() -> None:
    assert {aspect.name for aspect, _ in shown()} == {aspect.name for aspect in ASPECTS}


@every_aspect
def test_the_arrays_are_counts_or_sums_of_the_announced_shape(aspect: Aspect, name: str) -> None:
    window = worlds()[name].fill()
    for array, spec in aspect.arrays(window.schema).items():
        assert (window.arrays[array].shape, window.arrays[array].dtype) == (spec.shape, np.dtype(spec.dtype))
        assert spec.dtype in ("int64", "float64")


@every_aspect
def test_it_counts_something(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    assert any(array.any() for array in world.own(aspect, world.fill()).values())


@every_aspect
def test_parts_add_up_to_the_whole(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    parts = Window.zero(world.profile.schema)
    for start in range(0, ROWS, 37):
        parts = world.fill(slice(start, start + 37)).merge(parts)
    whole = world.fill()
    # Health is sampled by time and not by row: each part numbers its samples afresh.
    names = [name for name in world.own(aspect, whole) if name != "health_sum"]
    assert all(same(parts.arrays[name], whole.arrays[name]) for name in names)


@every_aspect
def test_merging_is_addition_in_any_order_with_a_zero(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    parts = [world.fill(slice(start, start + 30)) for start in (0, 30, 60)]
    zero = Window.zero(world.profile.schema)
    expected = {key: sum(part.arrays[key] for part in parts) for key in world.own(aspect, parts[0])}
    for a, b, c in itertools.permutations(parts):
        for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), zero.merge(a).merge(b.merge(zero)).merge(c)):
            assert all(same(merged.arrays[key], total) for key, total in expected.items())
        assert world.own(aspect, a.merge(b)).keys() == expected.keys()
        for key in expected:
            assert np.array_equal(a.merge(b).arrays[key], b.merge(a).arrays[key]), "to the last bit"


@every_aspect
def test_counting_into_one_window_is_merging_two(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    one = world.fill(slice(0, 40))
    together = world.fill(slice(40, ROWS), one.copy())
    merged = one.merge(world.fill(slice(40, ROWS)))
    for key, array in world.own(aspect, together).items():
        assert same(array, merged.arrays[key])


@every_aspect
def test_the_order_of_rows_does_not_matter(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    shuffled = world.fill(np.random.default_rng(0).permutation(ROWS))
    for key, array in world.own(aspect, world.fill()).items():
        assert same(array, shuffled.arrays[key])


@every_aspect
def test_no_rows_change_nothing(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    window = world.fill()
    before = {key: array.copy() for key, array in world.own(aspect, window).items()}
    world.fill(slice(0, 0), window)
    assert all(np.array_equal(before[key], array) for key, array in world.own(aspect, window).items())


@every_aspect
def test_it_keeps_no_state_and_leaves_its_inputs(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    before = [array.copy() for array in world.batch]
    state = dict(vars(aspect))
    first, second = world.fill(), world.fill()
    assert all(np.array_equal(array, second.arrays[key]) for key, array in world.own(aspect, first).items())
    assert all(np.array_equal(a, b) for a, b in zip(before, world.batch, strict=True))
    assert vars(aspect) == state


@every_aspect
def test_honest_windows_pass_its_check(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    windows = [Window.zero(world.profile.schema), world.fill(slice(0, 1)), world.fill()]
    windows.append(windows[1].merge(windows[2]))
    for window in windows:
        aspect.check(window.arrays)


@every_aspect
def test_sums_that_no_rows_have_do_not_pass(aspect: Aspect, name: str) -> None:
    window = worlds()[name].fill()
    spoil(aspect, window.arrays)
    with pytest.raises(InsightsError):
        aspect.check(window.arrays)
    with pytest.raises(InsightsError):
        Window.from_wire(window.to_wire(), window.schema)


@every_aspect
def test_it_can_do_without_features_and_without_inputs(aspect: Aspect, name: str) -> None:
    inputs, probabilities, _, latency, labels, holdout, _ = worlds()[name].batch
    plain = Profile.fit(inputs, probabilities, None, kind=worlds()[name].profile.form.kind)
    window = Window.zero(plain.schema, "sha256:b")
    Observer(plain).observe(window, None, probabilities, None, latency)
    Observer(plain).feedback(window, None, labels, labels, holdout)
    aspect.check(window.arrays)
    assert window.predictions == ROWS and Window.from_wire(window.to_wire(), plain.schema) == window
