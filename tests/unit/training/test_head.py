"""The head trainer on real digits: what sums give is what the rows themselves would have given."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neural_network import MLPClassifier

from cloud_hub.training.head import (
    METHODS,
    HeadFit,
    calibrate,
    fit_head,
    heads,
    holdout_accuracy,
    holdout_error,
    holdout_loss,
)
from cloud_hub.training.head_statistics import HeadError, HeadStatistics, Share
from edgeloop.insights import Observer, Profile, Window, WindowSchema, holdout_share
from tests.doubles.digits import classifier, splits
from tests.unit.insights.worlds import digit_outputs, slip, unseen_digits

Array = npt.NDArray[Any]
LABELLED = 600


@functools.cache
def world() -> tuple[Array, Array, Array, Array, Array]:
    """After the camera has slipped: features, labels and held-out marks of 600 rows; features, labels of the others."""
    x, y = unseen_digits()
    features, _ = digit_outputs(slip(x, seed=2))
    holdout = np.array([holdout_share(f"row-{i}") for i in range(LABELLED)])
    return features[:LABELLED], y[:LABELLED], holdout, features[LABELLED:], y[LABELLED:]


@functools.cache
def statistics() -> HeadStatistics:
    features, labels, holdout, *_ = world()
    return HeadStatistics(
        Share.of_rows(features[~holdout], labels[~holdout], 10), Share.of_rows(features[holdout], labels[holdout], 10)
    )


@functools.cache
def fitted() -> HeadFit:
    return fit_head(statistics())


def present_head() -> tuple[Array, Array]:
    return classifier().coefs_[-1].T, classifier().intercepts_[-1]


def accuracy(weight: Array, bias: Array) -> float:
    *_, features, labels = world()
    return float(((features @ weight.T + bias).argmax(axis=1) == labels).mean())


def relative(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def test_a_new_head_from_600_labels_mends_a_slipped_camera() -> None:
    assert accuracy(*present_head()) <= 0.65
    assert accuracy(fitted().weight, fitted().bias) >= 0.80
    assert fitted().labels == LABELLED


@pytest.mark.parametrize("method", METHODS)
def test_either_method_alone_does_too(method: str) -> None:
    fit = fit_head(statistics(), methods=(method,))
    assert fit.method == method and accuracy(fit.weight, fit.bias) >= 0.80


@pytest.mark.parametrize("devices", [2, 7])
def test_merged_windows_of_many_devices_give_the_head_of_one(devices: int) -> None:
    features, labels, holdout, *_ = world()
    x, _ = unseen_digits()
    _, probabilities = digit_outputs(x[:LABELLED])
    profile = Profile.fit(x[:LABELLED], probabilities, features)
    total = Window.zero(profile.schema)
    for part in np.array_split(np.random.default_rng(devices).permutation(LABELLED), devices):
        window = Window.zero(profile.schema, "sha256:a")
        Observer(profile).feedback(window, features[part], labels[part], labels[part], holdout[part])
        total = total.merge(Window.from_wire(window.to_wire(), profile.schema))
    central = statistics()
    merged = HeadStatistics.of_window(total)
    assert np.array_equal(merged.fit.count, central.fit.count)
    assert relative(merged.fit.gram, central.fit.gram) < 1e-12
    fit = fit_head(merged)
    assert (fit.method, fit.regularisation) == (fitted().method, fitted().regularisation)
    assert relative(fit.weight, fitted().weight) < 1e-9
    assert relative(fit.bias, fitted().bias) < 1e-9


def test_merging_over_devices_is_exact_with_weights_too() -> None:
    """What ten devices send adds up to what one computation of all rows gives, to 1e-9 of the largest number."""
    features, labels, holdout, *_ = world()
    weights = 1.0 + np.arange(LABELLED) % 7
    x, _ = unseen_digits()
    profile = Profile.fit(x[:LABELLED], digit_outputs(x[:LABELLED])[1], features)
    total = Window.zero(profile.schema)
    for part in np.array_split(np.random.default_rng(0).permutation(LABELLED), 10):
        window = Window.zero(profile.schema, "sha256:a")
        rows = (features[part], labels[part], labels[part], holdout[part])
        Observer(profile).feedback(window, *rows, weights=weights[part])
        total = total.merge(Window.from_wire(window.to_wire(), profile.schema))
    merged = HeadStatistics.of_window(Window.from_bytes(total.to_bytes(), profile.schema))
    for share, chosen in ((merged.fit, ~holdout), (merged.holdout, holdout)):
        central = Share.of_rows(features[chosen], labels[chosen], 10, weights[chosen])
        assert np.array_equal(share.count, central.count)
        for name in ("weight", "square", "sums", "gram"):
            assert relative(getattr(share, name), getattr(central, name)) < 1e-9
        assert share.worth == pytest.approx(weights[chosen].sum() ** 2 / (weights[chosen] ** 2).sum())


def test_a_row_of_weight_three_is_three_rows() -> None:
    features, labels, *_ = world()
    thrice = np.repeat(np.arange(LABELLED), 1 + 2 * (labels == 4))
    heavy = Share.of_rows(features, labels, 10, 1.0 + 2.0 * (labels == 4))
    many = Share.of_rows(features[thrice], labels[thrice], 10)
    assert heavy.total == LABELLED < many.total == heavy.mass
    for name in ("priors", "mean", "class_means", "total_covariance", "within_covariance", "cross_covariance"):
        assert relative(getattr(heavy, name), getattr(many, name)) < 1e-9, name


def test_labels_that_were_chosen_for_their_doubt_are_weighted_back() -> None:
    """Drifted digits that the head is unsure of are labelled far more often; 1/p makes up for it."""
    x, y = unseen_digits()
    features, _ = digit_outputs(slip(x, seed=2))
    weight, bias = present_head()
    logits = features @ weight.T + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    unsure = (p / p.sum(axis=1, keepdims=True)).max(axis=1) < 0.8
    chance = np.where(unsure, 0.9, 0.15)
    weighted, plain = [], []
    for seed in range(20):
        drawn = np.random.default_rng(seed).random(len(y)) < chance
        weighted.append(Share.of_rows(features[drawn], y[drawn], 10, 1 / chance[drawn]).mean)
        plain.append(Share.of_rows(features[drawn], y[drawn], 10).mean)
    true = Share.of_rows(features, y, 10).mean
    assert np.abs(np.mean(weighted, axis=0) - true).max() < 0.3 * np.abs(np.mean(plain, axis=0) - true).max()


@pytest.mark.parametrize("shrinkage", [0.01, 0.1, 0.5])
def test_the_discriminant_is_scikit_learns(shrinkage: float) -> None:
    features, labels, *_ = world()
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(features.astype(float), labels)
    ((_, weight, bias),) = heads(statistics().all, "lda", (shrinkage,))
    assert relative(weight, theirs.coef_) < 1e-6
    assert relative(bias, theirs.intercept_) < 1e-6


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 1.0])
def test_ridge_is_scikit_learns(penalty: float) -> None:
    features, labels, *_ = world()
    exact = features.astype(float)
    alpha = penalty * np.trace(np.cov(exact.T, bias=True)) / exact.shape[1] * len(exact)
    theirs = Ridge(alpha=alpha).fit(exact, np.eye(10)[labels])
    ((_, weight, bias),) = heads(statistics().all, "ridge", (penalty,))
    assert relative(weight, theirs.coef_) < 1e-6
    assert relative(bias, theirs.intercept_) < 1e-6


@pytest.mark.parametrize("which", ["present", "new", "random"])
def test_the_held_out_error_is_that_of_a_regression_on_the_rows(which: str) -> None:
    features, labels, holdout, *_ = world()
    random = np.random.default_rng(0)
    weight, bias = {
        "present": present_head(),
        "new": (fitted().trial_weight, fitted().trial_bias),
        "random": (random.normal(size=(10, 64)), random.normal(size=10)),
    }[which]
    logits = features[holdout].astype(float) @ weight.T + bias
    logits -= logits.mean(axis=1, keepdims=True)
    targets = np.eye(10)[labels[holdout]]
    # One scale and ten offsets: regress the centred targets, all classes in one column, on the centred logits.
    a = (logits - logits.mean(axis=0)).ravel()[:, None]
    b = (targets - targets.mean(axis=0)).ravel()
    slope = max(float(LinearRegression(fit_intercept=False).fit(a, b).coef_[0]), 0.0)
    by_rows = float(((b - slope * a[:, 0]) ** 2).sum() / len(targets))
    assert holdout_error(statistics(), weight, bias) == pytest.approx(by_rows, rel=1e-9)
    assert holdout_error(statistics().holdout, weight, bias) == holdout_error(statistics(), weight, bias)


def test_errors_do_not_depend_on_a_heads_scale_or_on_what_all_classes_share() -> None:
    weight, bias = fitted().trial_weight, fitted().trial_bias
    shifted, moved = 7.0 * (weight + 3.0), 7.0 * (bias - 2.0)
    for judge in (holdout_error, holdout_loss, holdout_accuracy):
        assert judge(statistics(), shifted, moved) == pytest.approx(judge(statistics(), weight, bias), rel=1e-3)


def test_every_measure_prefers_the_new_head_to_the_present_one() -> None:
    old, fit = present_head(), fitted()
    assert fit.holdout_error < holdout_error(statistics(), *old)
    assert fit.holdout_loss < holdout_loss(statistics(), *old)
    assert fit.holdout_accuracy > holdout_accuracy(statistics(), *old)


def test_the_reported_figures_are_those_of_the_head_that_never_saw_the_held_out_share() -> None:
    fit = fitted()
    assert fit.holdout_error == pytest.approx(holdout_error(statistics(), fit.trial_weight, fit.trial_bias))
    assert fit.holdout_accuracy == holdout_accuracy(statistics(), fit.trial_weight, fit.trial_bias)
    assert not np.allclose(fit.weight, fit.trial_weight)


def test_a_useless_head_is_no_better_than_the_class_shares() -> None:
    share = statistics().holdout
    chance = 1 - (share.priors**2).sum()
    nothing = np.zeros((10, 64))
    assert holdout_error(share, nothing, np.zeros(10)) == pytest.approx(chance)
    assert holdout_error(share, -fitted().weight, fitted().bias) == pytest.approx(chance)  # a scale below 0 is none
    assert holdout_loss(share, nothing, np.zeros(10)) == pytest.approx(np.log(10), abs=0.01)


def test_softmax_of_the_new_head_means_something() -> None:
    *_, features, labels = world()
    logits = features @ fitted().weight.T + fitted().bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    sure, right = p.max(axis=1).mean(), (p.argmax(axis=1) == labels).mean()
    # Normal tails are lighter than real ones, so it is somewhat too sure; without the scale ridge would say 0.2 always.
    assert right - 0.05 < sure < right + 0.15


@pytest.mark.parametrize("factor", [0.01, 1.0, 50.0])
def test_calibration_undoes_a_scale(factor: float) -> None:
    weight, bias = fitted().trial_weight, fitted().trial_bias
    assert calibrate(statistics(), factor * weight, factor * bias) == pytest.approx(1 / factor, rel=0.01)


def test_normal_features_have_the_accuracy_that_the_approximation_says() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(size=(4, 6)) * 1.2
    labels = rng.integers(0, 4, 40_000)
    features = means[labels] + rng.normal(size=(40_000, 6))
    stats = HeadStatistics(
        Share.of_rows(features[:300], labels[:300], 4), Share.of_rows(features[300:], labels[300:], 4)
    )
    fit = fit_head(stats)
    true = ((features[300:] @ fit.trial_weight.T + fit.trial_bias).argmax(axis=1) == labels[300:]).mean()
    assert fit.holdout_accuracy == pytest.approx(true, abs=0.02)


def without(class_: int, *, keep: int = 0) -> HeadStatistics:
    features, labels, holdout, *_ = world()
    rows = np.flatnonzero(labels != class_).tolist() + np.flatnonzero((labels == class_) & ~holdout)[:keep].tolist()
    f, y, h = features[rows], labels[rows], holdout[rows]
    return HeadStatistics(Share.of_rows(f[~h], y[~h], 10), Share.of_rows(f[h], y[h], 10))


@pytest.mark.parametrize("keep", [0, 2])
def test_too_few_labels_of_a_class(keep: int) -> None:
    with pytest.raises(HeadError, match=rf"1 of 10 classes have fewer than 3 labels.*\(7: {keep}\).*label more"):
        fit_head(without(7, keep=keep))


def test_a_class_that_is_missing_in_the_held_out_share_is_no_hindrance() -> None:
    assert fit_head(without(7, keep=20)).weight.shape == (10, 64)


def test_nothing_is_held_out() -> None:
    share = statistics().fit
    empty = Share(np.zeros(10, np.int64), np.zeros(10), np.zeros(10), np.zeros((10, 64)), np.zeros((64, 64)))
    with pytest.raises(HeadError, match="0 labels are held out"):
        fit_head(HeadStatistics(share, empty))


@pytest.mark.parametrize("method", METHODS)
def test_more_features_than_rows_and_dead_features(method: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    features = np.zeros((40, 100))
    features[:, :60] = rng.normal(size=(40, 60)) + labels[:, None]
    stats = HeadStatistics(Share.of_rows(features[:30], labels[:30], 4), Share.of_rows(features[30:], labels[30:], 4))
    fit = fit_head(stats, methods=(method,))
    assert np.isfinite(fit.weight).all() and np.isfinite(fit.bias).all() and np.isfinite(fit.holdout_loss)


@pytest.mark.parametrize("method", METHODS)
def test_features_without_variance(method: str) -> None:
    labels = np.arange(40) % 4
    share = Share.of_rows(np.zeros((40, 3)), labels, 4)
    with pytest.raises(HeadError, match="do not vary"):
        fit_head(HeadStatistics(share, share), methods=(method,))


def test_sums_that_no_rows_have() -> None:
    share = statistics().fit
    forged = replace(share, gram=-share.gram + 2 * np.diag(np.diag(share.gram)))
    with pytest.raises(HeadError, match="not that of any rows"):
        fit_head(HeadStatistics(forged, statistics().holdout))


@pytest.mark.parametrize(
    "schema", [WindowSchema(10, 0, 8, 0), WindowSchema(1000, 4096, 8, 8)], ids=["none", "too many"]
)
def test_windows_without_head_statistics(schema: WindowSchema) -> None:
    with pytest.raises(HeadError, match="no head statistics"):
        HeadStatistics.of_window(Window.zero(schema))


@pytest.mark.parametrize("methods", [(), ("magic",)])
def test_methods_that_are_none(methods: tuple[str, ...]) -> None:
    with pytest.raises(HeadError, match="choose from"):
        fit_head(statistics(), methods=methods)


@functools.cache
def new_classes() -> tuple[Array, Array, Array, Array]:
    """A network that has never seen a 7 or a 9: features and labels of 600 digits, and of the others."""
    known = splits().train
    seen = ~np.isin(known.y, (7, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = MLPClassifier((64, 32), max_iter=60, random_state=0).fit(known.x[seen], known.y[seen])
    x, y = unseen_digits()
    for weight, bias in list(zip(network.coefs_, network.intercepts_, strict=True))[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    return x[:LABELLED], y[:LABELLED], x[LABELLED:], y[LABELLED:]


def test_a_new_class_needs_its_labels_and_no_new_backbone() -> None:
    features, labels, later, truth = new_classes()
    held = np.arange(LABELLED) % 4 == 0
    stats = HeadStatistics(*(Share.of_rows(features[rows], labels[rows], 10) for rows in (~held, held)))
    fit = fit_head(stats)
    answers = (later @ fit.weight.T + fit.bias).argmax(axis=1)
    for digit in (7, 9):
        assert (answers == digit)[truth == digit].mean() > 0.7
    assert (answers == truth).mean() > 0.85


def test_a_class_that_nobody_has_labelled_yet_is_never_answered() -> None:
    features, labels, later, truth = new_classes()
    rows = labels != 9
    features, labels, held = features[rows], labels[rows], (np.arange(LABELLED) % 4 == 0)[rows]
    stats = HeadStatistics(*(Share.of_rows(features[part], labels[part], 10) for part in (~held, held)))
    with pytest.raises(HeadError, match="label more"):
        fit_head(stats)
    fit = fit_head(stats, reserved=[9])
    answers = (later @ fit.weight.T + fit.bias).argmax(axis=1)
    assert not (answers == 9).any() and (answers == truth)[truth != 9].mean() > 0.85
    assert fit.holdout_accuracy == pytest.approx(holdout_accuracy(stats, fit.trial_weight, fit.trial_bias), abs=0.02)
    assert fit.holdout_error == pytest.approx(holdout_error(stats, fit.trial_weight, fit.trial_bias), rel=0.1)


def test_two_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    features = rng.normal(size=(400, 5)) + labels[:, None]
    stats = HeadStatistics(
        Share.of_rows(features[:300], labels[:300], 2), Share.of_rows(features[300:], labels[300:], 2)
    )
    fit = fit_head(stats)
    assert ((features @ fit.weight.T + fit.bias).argmax(axis=1) == labels).mean() > 0.8
