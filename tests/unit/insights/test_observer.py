"""The observer counts what a loop over rows would count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeloop.insights import InsightsError, Observer, Window, latency_quantile_ns
from edgeloop.insights.aspects.head import unpack_gram
from edgeloop.insights.summaries import feature_signs, summarise
from tests.unit.insights.worlds import CLASSES, FEATURES, Array, Batch, profile, random_batch

BATCH = random_batch(200, seed=8)


def zero() -> Window:
    return Window.zero(profile().schema, "sha256:a")


def observe(batch: Batch, window: Window | None = None, **changed: Any) -> Window:
    window = zero() if window is None else window
    given = {"inputs": batch.x, "probabilities": batch.p, "features": batch.f, "latency_ns": batch.ns} | changed
    Observer(profile()).observe(window, **given)
    return window


def by_hand(values: Array, edges: Array) -> list[int]:
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[sum(value >= edge for edge in edges)] += 1
    return counts


def test_histograms_are_those_of_a_loop_over_rows() -> None:
    arrays, edges = observe(BATCH).arrays, profile().edges
    assert arrays["classes"].tolist() == [int((BATCH.p.argmax(axis=1) == k).sum()) for k in range(CLASSES)]
    assert arrays["confidence"].tolist() == by_hand(BATCH.p.max(axis=1).astype(float), edges.of("confidence")[0])
    for i, values in enumerate(summarise(BATCH.x, 5)):
        assert arrays["inputs"][i].tolist() == by_hand(values, edges.of("inputs")[i])
    for i, values in enumerate(feature_signs(FEATURES, 8, 5) @ BATCH.f.astype(float).T):
        assert arrays["projections"][i].tolist() == by_hand(values, edges.of("projections")[i])


def test_moments_are_those_of_numpy() -> None:
    arrays, f = observe(BATCH).arrays, BATCH.f.astype(float)
    assert np.allclose(arrays["feature_sum"], f.sum(axis=0))
    assert np.allclose(arrays["feature_squares"], (f**2).sum(axis=0))
    assert np.allclose(arrays["input_sum"], summarise(BATCH.x, 5).sum(axis=1))
    assert np.allclose(arrays["input_squares"], (summarise(BATCH.x, 5) ** 2).sum(axis=1))


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_latency_quantiles_are_within_two_per_cent(quantile: float) -> None:
    ns = np.random.default_rng(0).lognormal(14, 2, 2000).astype(np.int64).clip(1_000, 10**11)
    batch = random_batch(2000)
    found = latency_quantile_ns(observe(batch, latency_ns=ns).arrays["latency"], quantile)
    assert found == pytest.approx(np.quantile(ns, quantile, method="inverted_cdf"), rel=0.0201)


def test_latencies_out_of_range_are_in_the_end_bins() -> None:
    ns = np.array([-5, 0, 1, 10**15] * 50)
    latency = observe(BATCH, latency_ns=ns).arrays["latency"]
    assert latency[0] == 150 and latency[-1] == 50


def test_no_latency_was_measured() -> None:
    window = observe(BATCH, latency_ns=np.zeros(0, np.int64))
    assert window.predictions == 200 and latency_quantile_ns(window.arrays["latency"], 0.5) is None


def test_rows_that_are_not_finite_count_as_predictions_and_as_nothing_else() -> None:
    batch = random_batch(50, seed=4)
    batch.p[1] = np.nan
    batch.f[2, 3] = np.inf
    batch.x[3, 0] = -np.inf
    batch.f[4, 0] = 1e35
    batch.x[5, 0] = np.nan
    batch.f[5, 0] = np.nan
    window = observe(batch)
    rest = np.r_[0, 6:50]
    clean = observe(Batch(*(array[rest] for array in (batch.x, batch.p, batch.f, batch.ns, batch.y))))
    assert (window.predictions, window.nonfinite) == (50, 5)
    for name in ("classes", "confidence", "inputs", "projections", "feature_sum", "input_squares"):
        assert np.allclose(window.arrays[name], clean.arrays[name])
    assert Window.from_wire(window.to_wire(), window.schema) == window


def test_the_caller_may_know_of_more_rows_that_are_not_finite() -> None:
    assert observe(BATCH, nonfinite=7).nonfinite == 7
    assert observe(BATCH, nonfinite=10**9).nonfinite == 200


def test_a_model_whose_features_are_not_asked_for() -> None:
    window = observe(BATCH, features=None)
    assert window.predictions == 200 and not window.arrays["projections"].any()
    assert Window.from_wire(window.to_wire(), window.schema) == window


def test_an_empty_batch_changes_nothing() -> None:
    assert observe(BATCH.part(0, 0)) == zero()


def test_inputs_are_left_as_they_were() -> None:
    before = [array.copy() for array in (BATCH.x, BATCH.p, BATCH.f)]
    observe(BATCH)
    assert all(np.array_equal(a, b) for a, b in zip(before, (BATCH.x, BATCH.p, BATCH.f), strict=True))


@pytest.mark.parametrize(
    "changed",
    [
        {"probabilities": np.zeros((200, 3))},
        {"probabilities": np.zeros(200)},
        {"inputs": np.zeros((199, 20))},
        {"inputs": np.zeros((200, 5))},
        {"inputs": np.array(["a"] * 200)},
        {"features": np.zeros((200, 7))},
        {"latency_ns": np.zeros(3, np.int64)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_batch_that_does_not_fit_leaves_the_window_unchanged(changed: dict[str, Array]) -> None:
    window = zero()
    with pytest.raises(InsightsError):
        observe(BATCH, window, **changed)
    assert window == zero()


def feedback(window: Window, **changed: Any) -> Window:
    given = {
        "features": BATCH.f,
        "predicted": BATCH.p.argmax(axis=1),
        "labels": BATCH.y,
        "holdout": np.arange(200) % 4 == 0,
    }
    Observer(profile()).feedback(window, **(given | changed))
    return window


def test_the_matrix_has_the_truth_in_rows() -> None:
    matrix = feedback(zero()).arrays["confusion"]
    predicted = BATCH.p.argmax(axis=1)
    for truth in range(CLASSES):
        for answer in range(CLASSES):
            assert matrix[truth, answer] == ((truth == BATCH.y) & (predicted == answer)).sum()


def test_head_statistics_weigh_each_label_and_count_it_once() -> None:
    weights = 1.0 + np.arange(200) % 5
    arrays, held = feedback(zero(), weights=weights).arrays, np.arange(200) % 4 == 0
    for share, chosen in (("fit", ~held), ("holdout", held)):
        f, y, w = BATCH.f[chosen].astype(np.float64), BATCH.y[chosen], weights[chosen]
        assert arrays[f"head_{share}_count"].tolist() == np.bincount(y, minlength=CLASSES).tolist()
        excess = [np.bincount(y, more, minlength=CLASSES) for more in (w - 1, w * w - 1)]
        assert np.allclose(arrays[f"head_{share}_excess"], excess)
        assert np.allclose(arrays[f"head_{share}_sum"], [(w @ (f * (y == k)[:, None])) for k in range(CLASSES)])
        assert np.allclose(unpack_gram(arrays[f"head_{share}_gram"], FEATURES), (f * w[:, None]).T @ f)


@pytest.mark.parametrize(
    ("row", "value", "what"),
    [
        (0, -1.0, "weighs less than 1"),
        (1, -1.0, "weighs less than 1"),
        (0, 1e9, "weigh more than 10000 each"),
        (0, 1e3, "larger than their squares allow"),
        (1, 1e30, "beyond what weights give"),
    ],
)
def test_weights_that_no_labels_have_are_refused(row: int, value: float, what: str) -> None:
    window = feedback(zero(), weights=np.full(200, 2.0))
    window.arrays["head_fit_excess"][row, 1] = value
    with pytest.raises(InsightsError, match=what):
        Window.from_wire(window.to_wire(), window.schema)


def test_where_features_are_clipped_for_noise_every_label_weighs_one() -> None:
    clipped, heavy = Observer(profile(), clip=1e6), zero()
    plain = feedback(zero())
    given = (BATCH.f, BATCH.p.argmax(axis=1), BATCH.y, np.arange(200) % 4 == 0)
    clipped.feedback(heavy, *given, weights=np.full(200, 9.0))
    assert not heavy.arrays["head_fit_excess"].any()
    assert np.allclose(heavy.arrays["head_fit_gram"], plain.arrays["head_fit_gram"])


def test_head_statistics_are_those_of_the_rows_in_each_share() -> None:
    arrays, held = feedback(zero()).arrays, np.arange(200) % 4 == 0
    for share, rows in (("fit", ~held), ("holdout", held)):
        f, y = BATCH.f[rows].astype(float), BATCH.y[rows]
        assert arrays[f"head_{share}_count"].tolist() == np.bincount(y, minlength=CLASSES).tolist()
        assert np.allclose(arrays[f"head_{share}_sum"], [f[y == k].sum(axis=0) for k in range(CLASSES)])
        assert np.allclose(unpack_gram(arrays[f"head_{share}_gram"], FEATURES), f.T @ f)


def test_wide_features_take_the_other_way_to_the_same_sums() -> None:
    from edgeloop.insights import Profile

    rng = np.random.default_rng(0)
    wide = rng.normal(size=(20, 300)).astype(np.float32)
    p = rng.dirichlet(np.ones(3), 20)
    fitted = Profile.fit(rng.normal(size=(20, 2)), p, wide)
    window = Window.zero(fitted.schema, "sha256:a")
    Observer(fitted).feedback(window, wide, np.zeros(20, int), np.arange(20) % 3, np.zeros(20, bool))
    exact = wide.astype(float)
    assert np.allclose(unpack_gram(window.arrays["head_fit_gram"], 300), exact.T @ exact)
    assert Window.from_wire(window.to_wire(), fitted.schema) == window


def test_labels_without_features_go_to_the_matrix_only() -> None:
    window = feedback(zero(), features=None)
    assert window.feedback == 200 and window.arrays["confusion"].sum() == 200
    assert not window.arrays["head_fit_count"].any()


def test_a_label_whose_features_are_not_finite() -> None:
    f = BATCH.f.copy()
    f[0, 0], f[1, 1] = np.nan, np.inf
    arrays = feedback(zero(), features=f).arrays
    assert arrays["head_fit_count"].sum() + arrays["head_holdout_count"].sum() == 198
    assert np.isfinite(arrays["head_fit_gram"]).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": np.full(200, CLASSES)},
        {"labels": np.full(200, -1)},
        {"predicted": np.full(200, CLASSES)},
        {"labels": np.zeros(200)},
        {"holdout": np.zeros(3, bool)},
        {"features": np.zeros((200, 9))},
    ],
    ids=["beyond", "negative", "predicted", "floats", "marks", "features"],
)
def test_labels_that_do_not_fit_leave_the_window_unchanged(changed: dict[str, Array]) -> None:
    window = zero()
    with pytest.raises(InsightsError):
        feedback(window, **changed)
    assert window == zero()


def test_health_leaves_out_what_is_not_known() -> None:
    window, observer = zero(), Observer(profile())
    observer.health(window, rss_bytes=2e8, cpu_share=0.5)
    observer.health(window, rss_bytes=4e8, cpu_share=float("nan"), temperature_c=51.0)
    assert window.arrays["health_samples"].tolist() == [2, 1, 1]
    assert window.arrays["health_sum"].tolist() == [6e8, 0.5, 51.0]
