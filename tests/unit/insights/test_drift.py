"""Drift on real digits: it is seen, it is named, and clean digits raise no alarm."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from edgeloop.insights import InsightsError, Observer, Profile, Window, WindowSchema, compare, null
from edgeloop.insights.drift import Comparison, class_groups, counts_of
from tests.unit.insights.worlds import Array, digit_outputs, random_batch, slip, unseen_digits


@functools.cache
def world(reference_rows: int = 350) -> tuple[Profile, Array]:
    """A profile of some digits, and the other digits."""
    x, _ = unseen_digits()
    features, probabilities = digit_outputs(x[:reference_rows])
    return Profile.fit(x[:reference_rows], probabilities, features), x[reference_rows:]


def window_of(profile: Profile, images: Array) -> Window:
    features, probabilities = digit_outputs(images)
    window = Window.zero(profile.schema, "sha256:a")
    Observer(profile).observe(window, images, probabilities, features, np.zeros(0, np.int64))
    return window


@pytest.mark.parametrize("rows", [100, 200, 600])
def test_a_camera_that_slips_is_seen(rows: int) -> None:
    profile, others = world()
    report = compare(window_of(profile, slip(others[:rows], seed=1)), profile.reference, profile.schema)
    assert report.drifted and report.window_size == rows and report.reference_size == 350
    assert any(aspect.drifted for aspect in report.aspects if aspect.name.startswith("projections"))
    assert "of the mass moved" in report.moved[0].moved
    assert report.moved[0].effect == max(aspect.effect for aspect in report.aspects if aspect.drifted)


def test_a_camera_that_turns_a_little_is_seen() -> None:
    profile, others = world()
    turned = slip(others[:300], seed=1, degrees=10, light=1.0, noise=0.0)
    assert compare(window_of(profile, turned), profile.reference, profile.schema).drifted


@pytest.mark.parametrize("rows", [100, 250, 600])
@pytest.mark.parametrize("reference_rows", [130, 350])
def test_other_clean_digits_raise_no_alarm(rows: int, reference_rows: int) -> None:
    profile, others = world(reference_rows)
    rng = np.random.default_rng(rows)
    reports = []
    for _ in range(20):
        chosen = others[rng.choice(len(others), rows, replace=False)]
        reports.append(compare(window_of(profile, chosen), profile.reference, profile.schema))
    assert sum(report.drifted for report in reports) <= 1  # one in a thousand is what was asked for


def test_false_alarms_come_as_often_as_asked_for() -> None:
    """Over all tests together, with an alpha large enough to be measured; effects of any size count."""
    x, _ = unseen_digits()
    features, probabilities = digit_outputs(x)
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(100):
        order = rng.permutation(len(x))
        normal, seen = order[:350], order[350:650]
        profile = Profile.fit(x[normal], probabilities[normal], features[normal])
        window = Window.zero(profile.schema, "sha256:a")
        Observer(profile).observe(window, x[seen], probabilities[seen], features[seen], np.zeros(0, np.int64))
        alarms += compare(window, profile.reference, profile.schema, alpha=0.1, min_effect=0.0).drifted
    # 20 of 100 is beyond the 99.9 % bound of a rate of 0.1; tests that go together make it less.
    assert alarms <= 20


def test_small_effects_are_not_worth_an_alarm() -> None:
    schema = WindowSchema(2, 0, 0, 0)
    window, reference = Window.zero(schema), Window.zero(schema)
    window.arrays["classes"][:] = 54_000, 46_000
    reference.arrays["classes"][:] = 50_000, 50_000
    report = compare(window, reference, schema)
    (classes,) = report.aspects
    assert classes.statistic > classes.threshold and not report.drifted
    assert compare(window, reference, schema, min_effect=0.03).drifted
    assert classes.effect == pytest.approx(0.04)


def test_what_moved_is_said_in_words() -> None:
    schema = WindowSchema(3, 0, 1, 0)
    window, reference = Window.zero(schema), Window.zero(schema)
    reference.arrays["classes"][:] = 100, 100, 100
    window.arrays["classes"][:] = 30, 30, 240
    reference.arrays["confidence"][:] = reference.arrays["inputs"][:] = 30
    window.arrays["confidence"][:] = [120, 60, 60, 60, 0, 0, 0, 0, 0, 0]
    window.arrays["inputs"][:] = [0, 0, 0, 0, 0, 0, 60, 60, 60, 120]
    said = {a.name: a.moved for a in compare(window, reference, schema, input_names=("light",)).aspects}
    assert said == {
        "confidence": "confidence: 60 % of the mass moved downward",
        "classes": "classes: class 2 went from 33 % to 80 % of the predictions",
        "inputs[0]": "light: 60 % of the mass moved upward",
    }


def test_every_aspect_says_how_certain_and_which_way() -> None:
    profile, others = world()
    report = compare(window_of(profile, slip(others[:300], seed=1)), profile.reference, profile.schema)
    for aspect in report.aspects:
        assert 0 <= aspect.p_value <= 1 and aspect.direction in ("up", "down", "both", "mix")
        assert aspect.drifted == (aspect.p_value < 0.001 / len(report.aspects) and aspect.effect >= 0.15)
    assert report.p_value == len(report.aspects) * min(aspect.p_value for aspect in report.aspects)
    directions = {aspect.name: aspect.direction for aspect in report.aspects}
    assert directions["inputs[0]"] == "down" and directions["classes"] == "mix", "dimmed to 60 %"
    clean = compare(window_of(profile, others[:300]), profile.reference, profile.schema)
    assert clean.p_value > 0.01


def test_the_means_of_the_features_are_an_aspect() -> None:
    profile, others = world()
    (features,) = [
        aspect
        for aspect in compare(window_of(profile, slip(others[:200], seed=1)), profile.reference, profile.schema).aspects
        if aspect.name == "features"
    ]
    assert features.drifted and features.effect > 0.15 and "times its spread" in features.moved


def test_many_windows_at_once_say_what_each_alone_does() -> None:
    profile, others = world()
    windows = [
        window_of(profile, others[:150]),
        window_of(profile, slip(others[:90], seed=1)),
        Window.zero(profile.schema, "sha256:a"),
    ]
    starts = class_groups(profile.reference.arrays["classes"])
    each = [counts_of(window, starts) for window in windows]
    stack = {name: np.stack([one[name] for one in each]) for name in each[0]}
    many = Comparison(stack, counts_of(profile.reference, starts), input_names=profile.input_names)
    assert many.drifted.tolist() == [False, True, False]
    for place, window in enumerate(windows):
        by_itself = compare(window, profile.reference, profile.schema, input_names=profile.input_names)
        assert many.report(place) == by_itself


def test_aspects_that_one_side_has_not_counted_are_skipped() -> None:
    profile, others = world()
    window = window_of(profile, slip(others[:200], seed=1))
    report = compare(window, Window.zero(profile.schema), profile.schema)
    assert report.aspects == () and not report.drifted
    empty = compare(Window.zero(profile.schema), profile.reference, profile.schema)
    assert empty.aspects == () and not empty.drifted


def test_many_classes_and_a_small_reference_raise_no_alarm() -> None:
    schema = WindowSchema(1000, 0, 0, 0)
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(40):
        window, reference = Window.zero(schema), Window.zero(schema)
        reference.arrays["classes"][:] = rng.multinomial(300, np.full(1000, 0.001))
        window.arrays["classes"][:] = rng.multinomial(500, np.full(1000, 0.001))
        alarms += compare(window, reference, schema, alpha=0.05, min_effect=0.0).drifted
    assert alarms <= 7


def test_a_second_look_draws_nothing_anew() -> None:
    profile, others = world()
    window = window_of(profile, others[:200])
    compare(window, profile.reference, profile.schema)
    drawn = null._null.cache_info()
    compare(window, profile.reference, profile.schema)
    again = null._null.cache_info()
    assert again.misses == drawn.misses and again.hits > drawn.hits


def test_windows_of_another_release_are_not_compared() -> None:
    profile, _ = world()
    batch = random_batch(20)
    other = Profile.fit(batch.x, batch.p, batch.f)
    with pytest.raises(InsightsError, match="one release"):
        compare(other.reference, profile.reference, profile.schema)


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": 1.0}, {"min_effect": -0.1}, {"min_effect": 2.0}])
def test_absurd_settings(wrong: dict[str, float]) -> None:
    profile, _ = world()
    with pytest.raises(InsightsError, match="shares"):
        compare(profile.reference, profile.reference, profile.schema, **wrong)
