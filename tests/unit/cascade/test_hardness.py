"""Signals: what a gauge measures of answers, good and broken ones."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.cascade.hardness import CLASS, COLUMNS, MOST_PLACES, WIDTH, Gauge, from_log_odds, log_odds, told
from edgeloop.insights import Profile
from edgeloop.insights.calibrating import calibrated

RNG = np.random.default_rng(0)
CENTRES = 4 * RNG.normal(size=(3, 6))
TRUTH = RNG.integers(0, 3, 300)
FEATURES = (CENTRES[TRUTH] + RNG.normal(size=(300, 6))).astype(np.float32)


def _scores(features: np.ndarray) -> np.ndarray:
    logits = -0.2 * ((features[:, None] - CENTRES) ** 2).sum(axis=2)
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def profile() -> Profile:
    scores = _scores(FEATURES)
    return calibrated(Profile.fit(FEATURES, scores, FEATURES), FEATURES, scores, FEATURES, TRUTH)


def test_each_signal_says_that_a_doubtful_row_is_doubtful(profile: Profile) -> None:
    rows = np.stack([CENTRES[0], (CENTRES[0] + CENTRES[1]) / 2, CENTRES[0] + 50]).astype(np.float32)
    signals = Gauge(profile, 3).signals(_scores(rows), rows, rows)
    sure, torn, far = signals
    assert (torn[:3] > sure[:3] + 0.2).all()
    assert sure[3] == 0 and far[3] > 0.9
    assert signals[:, CLASS].tolist() == _scores(rows).argmax(axis=1).tolist()
    assert np.allclose(signals[:, WIDTH:], rows)


def test_without_a_profile_there_are_the_signals_of_the_probabilities() -> None:
    signals = Gauge(None, 4).signals(np.array([[0.25] * 4, [1.0, 0, 0, 0]]), None, None)
    assert signals.shape == (2, WIDTH)
    assert np.allclose(signals[:, :4], [[0.75, 1, 1, 0], [0, 0, 0, 0]])


def test_a_model_of_one_class_is_never_in_doubt() -> None:
    assert Gauge(None, 1).signals(np.ones((2, 1)), None, None)[:, :4].max() == 0


def test_a_row_that_is_not_finite_is_as_hard_as_can_be(profile: Profile) -> None:
    features = FEATURES[:3].copy()
    scores = _scores(features)
    features[0, 0], scores[1, 0] = np.inf, np.nan
    signals = Gauge(profile, 3).signals(scores, features, features)
    assert np.isfinite(signals).all()
    assert (signals[:2, :4] == 1).all() and (signals[:2, WIDTH:] == 0).all()
    assert signals[2, :4].max() < 1


def test_wide_features_are_projected_and_words_have_no_place() -> None:
    gauge, scores = Gauge(None, 2), np.full((2, 2), 0.5)
    wide = RNG.normal(size=(2, 1280)).astype(np.float32)
    assert gauge.signals(scores, wide, None).shape == (2, WIDTH + MOST_PLACES)
    assert gauge.signals(scores, None, wide).shape == (2, WIDTH + MOST_PLACES)
    assert gauge.signals(scores, None, np.array(["a", "b"], dtype=object)).shape == (2, WIDTH)


def test_hardness_is_that_of_the_worst_signal_that_is_named() -> None:
    signals = np.array([[0.1, 0.9, 0.5, 0.2, 0.0]])
    assert told(signals, ("confidence", "distance")).tolist() == [0.2]
    assert told(signals, COLUMNS).tolist() == [0.9]
    assert told(signals, ("opinion",)).tolist() == [0.0]


def test_log_odds_are_undone() -> None:
    chance = np.array([0.0, 0.3, 1.0])
    assert np.allclose(from_log_odds(log_odds(chance)), chance, atol=1e-5)
