"""Noised windows: no neighbour moves them further than the accountant is told, and the hub's checks take them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgeloop.insights import Observer, Window, compare
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.privacy import noise_variance
from edgeloop.insights.drift import NOISE, Comparison
from edgeloop.insights.privacy import mechanism, projection
from edgeloop.insights.privacy.mechanism import TREATMENT, How, noise, volume
from edgeloop.insights.privacy.noise import GRID, noised, system_noise
from edgeloop.insights.privacy.rule import PrivacyRule, clip_of, stricter
from tests.unit.insights.worlds import FEATURES, Batch, profile, random_batch

CLIP = 1.7


def counted(batch: Batch, clip: float = CLIP, labels: bool = True) -> Window:
    """A window of clipped features, with a label for each prediction."""
    window = Window.zero(profile().schema, "sha256:a", "cpu-fp32", "CPU", 10.0, 20.0)
    observer, times = Observer(profile(), clip), {"queue_ns": batch.ns // 3, "run_ns": batch.ns // 2}
    observer.observe(window, batch.x, batch.p, batch.f, batch.ns, **times)
    if labels:
        holdout = np.arange(len(batch)) % 4 == 0
        observer.feedback(window, batch.f, batch.p.argmax(axis=1), batch.y, holdout)
    return window


def random_noise(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal


def released(window: Window, multiplier: float, monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, float]]:
    """What gets noise: each part's exact values, and the standard deviation of its noise."""
    parts: list[tuple[np.ndarray, float]] = []

    def note(values: np.ndarray, deviation: float, source: Any) -> np.ndarray:
        parts.append((np.array(values, np.float64), deviation))
        return noised(values, deviation, source)

    with monkeypatch.context() as patched:
        patched.setattr(mechanism, "noised", note)
        noise(window, multiplier, CLIP, random_noise(0))
    return parts


def pairs() -> Iterator[tuple[Batch, Batch]]:
    """Histories that differ in the contents of one prediction and of its label, some of them as far as can be."""
    for seed in range(20):
        one, rng = random_batch(12, seed), np.random.default_rng(seed + 1000)
        other = Batch(*(array.copy() for array in (one.x, one.p, one.f, one.ns, one.y)))
        row = int(rng.integers(12))
        other.x[row] = rng.normal(size=other.x.shape[1]) * 100
        other.p[row] = np.roll(other.p[row], 1)
        other.ns[row] = 10**10
        other.y[row] = (other.y[row] + seed % 2) % 4
        other.f[row] = -one.f[row] * 100 if seed % 3 else np.eye(FEATURES)[seed % FEATURES] * 1e6
        yield one, other


def test_a_neighbour_moves_a_window_by_no_more_than_the_multiplier_says(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplier, farthest = 3.0, 0.0
    for one, other in pairs():
        ours = released(counted(one), multiplier, monkeypatch)
        theirs = released(counted(other), multiplier, monkeypatch)
        assert [deviation for _, deviation in ours] == [deviation for _, deviation in theirs]
        moved = sum(float(np.sum(((a - b) / s) ** 2)) for (a, s), (b, _) in zip(ours, theirs, strict=True))
        assert moved <= 1 / multiplier**2 * (1 + 1e-9)
        farthest = max(farthest, moved)
    assert farthest > 0.5 / multiplier**2, "the bound is not far from what can happen, else there is needless noise"


@pytest.mark.parametrize("rows", [1, 7, 400])
@pytest.mark.parametrize("multiplier", [1e-9, 0.5, 50.0, 1e6])
def test_the_hub_takes_noised_windows_and_their_sums_and_knows_them(rows: int, multiplier: float) -> None:
    schema = profile().schema
    total = Window.zero(schema)
    for seed in range(4):
        exact = counted(random_batch(rows, seed), labels=seed % 2 == 0)
        noisy = noise(exact, multiplier, CLIP, random_noise(seed))
        read = Window.from_wire(noisy.to_wire(), schema)
        assert read.predictions == rows and read.feedback == exact.feedback
        for name in ("classes", "confidence", "inputs", "projections", "latency", "confusion", "head_fit_count"):
            assert np.array_equal(read.arrays[name].sum(axis=-1).sum(), exact.arrays[name].sum()), name
        assert np.array_equal(read.arrays["inputs"].sum(axis=1), exact.arrays["inputs"].sum(axis=1))
        total = total.merge(read)
    Window.from_bytes(total.to_bytes(), schema)
    assert total.arrays["privacy"].tolist() == [4 * rows, 0, 4, 0, 0]
    assert noise_variance(total.arrays) > 0


def test_without_noise_to_speak_of_nothing_but_the_moments_of_the_inputs_is_gone() -> None:
    exact = counted(random_batch(50))
    noisy = noise(exact, 1e-9, CLIP, random_noise(0))
    gone = {"input_sum", "input_squares", "privacy", "privacy_variance"}
    for name in exact.schema.arrays:
        if name not in gone:
            assert np.allclose(noisy.arrays[name], exact.arrays[name], rtol=1e-5, atol=1e-4), name
    assert not noisy.arrays["input_sum"].any()


def test_sums_of_features_that_were_not_clipped_stay_on_the_device() -> None:
    one, other = random_batch(50), random_batch(50, 1)
    mixed = counted(one).merge(counted(other, clip=math.inf))
    for window, clip in ((mixed, CLIP), (counted(one), None)):
        check_without_feature_sums(noise(window, 1.0, clip, random_noise(0)))


def check_without_feature_sums(noisy: Window) -> None:
    for name in ("feature_sum", "feature_squares", "head_fit_count", "head_fit_sum", "head_holdout_gram"):
        assert not noisy.arrays[name].any(), name
    assert noisy.arrays["confusion"].any() and noisy.arrays["projections"].any()


def test_what_this_version_does_not_know_stays_on_the_device() -> None:
    window = counted(random_batch(5))
    window.extra["from_tomorrow"] = 1
    window.unknown["tomorrow"] = np.ones(3)
    for safe in (noise(window, 1.0, CLIP, random_noise(0)), volume(window)):
        assert not safe.extra and not safe.unknown


def test_a_spent_budget_leaves_the_volume_alone() -> None:
    window = counted(random_batch(50))
    bare = Window.from_wire(volume(window).to_wire(), window.schema)
    assert (bare.predictions, bare.feedback) == (50, 50)
    assert bare.arrays["privacy"].tolist() == [0, 50, 0, 0, 0]
    told = {name for name, array in bare.arrays.items() if array.any()}
    assert told == {"counts", "privacy"}


def test_the_window_itself_is_left_as_it_is() -> None:
    window = counted(random_batch(50))
    before = window.copy()
    noise(window, 1.0, CLIP, random_noise(0))
    volume(window)
    assert window == before


def test_every_aspect_says_what_becomes_of_it() -> None:
    assert set(TREATMENT) == {aspect.name for aspect in ASPECTS}
    exact = {name for name, how in TREATMENT.items() if how is How.EXACT}
    assert exact == {"counts", "health", "privacy"}, "think twice, and change docs/explanations/privacy.md"


def test_a_head_of_many_noised_windows_is_that_of_the_exact_ones() -> None:
    """What is cut off below zero must not add up over windows: the scatter of the sum stays that of the rows."""
    exact, total = Window.zero(profile().schema), Window.zero(profile().schema)
    for seed in range(60):
        window = counted(random_batch(400, seed))
        exact, total = exact.merge(window), total.merge(noise(window, 2.0, CLIP, random_noise(seed)))
    theirs, ours = exact.arrays["head_fit_gram"], total.arrays["head_fit_gram"]
    assert np.linalg.norm(ours - theirs) <= 0.05 * np.linalg.norm(theirs)


def test_counts_that_add_up_are_the_nearest() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        noisy, total = rng.normal(0, 30, rng.integers(1, 12)), int(rng.integers(0, 60))
        counts = projection.counts_with_total(noisy, total)
        assert counts.min() >= 0 and counts.sum() == total
        real = projection.on_simplex(noisy, total)
        assert np.abs(counts - real).max() <= 1 + 1e-9
        other = rng.dirichlet(np.ones(len(noisy))) * total
        assert np.linalg.norm(real - noisy) <= np.linalg.norm(other - noisy) + 1e-9


def test_noise_is_normal_and_on_a_grid() -> None:
    drawn = system_noise(200_001)
    assert len(drawn) == 200_001 and np.isfinite(drawn).all()
    # Ten standard errors: a run that fails has met a fault, not chance.
    assert abs(drawn.mean()) < 10 / math.sqrt(len(drawn)) and abs(drawn.std() - 1) < 10 / math.sqrt(2 * len(drawn))
    assert abs((np.abs(drawn) < 1).mean() - 0.682_689) < 0.011
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.023
    values = noised(np.full(1000, 0.1), 3.0, system_noise)
    step = 2.0 ** math.floor(math.log2(3.0 * GRID))
    assert np.array_equal(values, np.round(values / step) * step)


def test_two_rules_together_keep_both_promises() -> None:
    mine, theirs = PrivacyRule(2.0, 1e-5, 7.0), PrivacyRule(3.0, 1e-6, 1.0)
    assert stricter(mine, theirs) == PrivacyRule(2.0, 1e-6, 7.0) == stricter(theirs, mine)
    assert stricter(mine, None) == mine == stricter(None, mine) and stricter(None, None) is None


def test_a_period_has_as_many_windows_as_are_closed_in_it() -> None:
    assert PrivacyRule(days=1.0).windows(3600.0, 1) == 24
    assert PrivacyRule(days=1.0).windows(3600.0, 9) == 216
    assert PrivacyRule(days=0.001).windows(3600.0, 1) == 1


def test_the_clip_follows_the_profile() -> None:
    lengths = np.linalg.norm(random_batch(300, seed=1).f, axis=1)
    assert clip_of(profile()) == pytest.approx(1.5 * math.sqrt((lengths**2).mean()))


def test_a_period_has_room_for_its_windows_and_no_more() -> None:
    pytest.importorskip("dp_accounting", reason="pip install 'edgeloop[privacy]'")
    from edgeloop.insights.privacy.budget import epsilon_of, work_out

    plan = work_out(1.0, 1e-6, 24, {})
    assert plan.left == 24
    assert 0.97 < epsilon_of(1e-6, {plan.multiplier: 24}) <= 1.0
    assert work_out(1.0, 1e-6, 24, {plan.multiplier: 20}).left == 4
    assert work_out(1.0, 1e-6, 24, {plan.multiplier: 24}).left == 0
    stricter_plan = work_out(0.5, 1e-6, 24, {plan.multiplier: 4})
    spent = {plan.multiplier: 4, stricter_plan.multiplier: stricter_plan.left}
    assert 0 < stricter_plan.left < 20 and epsilon_of(1e-6, spent) <= 0.5


@pytest.mark.parametrize(("rows", "variance"), [(800, 200.0), (3_000, 200.0), (800, 2_000.0)])
def test_noise_alone_is_no_drift(rows: int, variance: float) -> None:
    """Windows of a known histogram with noise, against a reference of finite size: chance alarms as often as it may."""
    rng, reference, alarms = np.random.default_rng(0), np.full(10, 30), 0
    windows = 0
    for _ in range(20):
        shares = rng.dirichlet(reference + 0.5)
        noisy = rng.multinomial(rows, shares, size=40) + rng.normal(0, math.sqrt(variance), (40, 10))
        counts = np.array([projection.counts_with_total(row, rows) for row in noisy])
        seen = {"classes": counts, NOISE: np.full(40, variance)}
        alarms += Comparison(seen, {"classes": reference}, alpha=0.01, min_effect=0.0).drifted.sum()
        windows += len(counts)
    assert alarms <= 0.03 * windows


def test_a_large_move_is_seen_through_the_noise() -> None:
    batch = random_batch(20_000, 9)
    moved = Batch(batch.x + 2.0, batch.p, batch.f + 2.0, batch.ns, batch.y)
    window = noise(counted(moved, labels=False), 20.0, CLIP, random_noise(1))
    report = compare(window, profile().reference, window.schema)
    assert report.drifted and all(aspect.name != "features" for aspect in report.aspects)
    assert {aspect.name.split("[")[0] for aspect in report.moved} >= {"inputs", "projections"}
