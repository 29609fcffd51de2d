"""A new head's confidence, from sums alone: on recovered digits the estimate of accuracy is right, or it warns."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cloud_hub.training.head import HeadFit, fit_head
from cloud_hub.training.head_calibration import head_calibration
from cloud_hub.training.head_statistics import HeadStatistics, Share
from edgeloop.insights import Observer, Profile, Window
from edgeloop.insights.accuracy import Estimate, estimate
from edgeloop.insights.calibration import Calibration
from edgeloop.insights.summaries import feature_signs
from tests.unit.insights.worlds import digit_outputs, digits_profile, slip, unseen_digits

Array = npt.NDArray[Any]


def projections() -> Array:
    sizes = digits_profile().schema
    return feature_signs(sizes.features, sizes.projections, digits_profile().seed)


@functools.cache
def recovered(labels: int) -> tuple[HeadFit, HeadStatistics, Calibration | None]:
    """The head for a camera that has slipped."""
    x, y = unseen_digits()
    features = digit_outputs(slip(x[:labels], seed=2))[0]
    held = np.arange(labels) % 4 == 0
    statistics = HeadStatistics(*(Share.of_rows(features[rows], y[:labels][rows], 10) for rows in (~held, held)))
    head = fit_head(statistics)
    return head, statistics, head_calibration(statistics, head, projections())


def answers(labels: int, images: Array, truth: Array) -> tuple[float, Estimate]:
    """True accuracy of the recovered head, and the one that a window of its answers says."""
    head, _, calibration = recovered(labels)
    profile: Profile = digits_profile().with_calibration(calibration)
    features = digit_outputs(images)[0]
    logits = features @ head.weight.T + head.bias
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    window = Window.zero(profile.schema)
    Observer(profile).observe(window, images, scores.astype(np.float32), features, np.zeros(0, np.int64))
    return float((scores.argmax(axis=1) == truth).mean()), estimate(window, profile)


@pytest.mark.parametrize("labels", [400, 600])
@pytest.mark.parametrize("noise", [11, 12, 13])
def test_on_recovered_digits_the_estimate_is_right_or_warns(labels: int, noise: int) -> None:
    x, y = unseen_digits()
    true, found = answers(labels, slip(x[600:], seed=noise), y[600:])
    assert found.expected is not None and found.beyond is not None
    assert found.expected.low <= true <= found.expected.high
    assert not found.trusted or abs(found.expected.value - true) <= 0.05


def test_at_least_once_it_is_trusted() -> None:
    x, y = unseen_digits()
    found = [answers(labels, slip(x[600:], seed=11), y[600:])[1] for labels in (400, 600)]
    assert any(one.trusted for one in found), [one.reason for one in found]


def test_in_a_world_that_the_labels_did_not_show_it_warns() -> None:
    x, y = unseen_digits()
    for images in (x[600:], 1.0 - x[600:]):
        true, found = answers(600, images, y[600:])
        assert not found.trusted and found.beyond is not None and found.beyond > 0.1, true


def test_it_travels_with_the_profile_and_says_how_little_it_rests_on() -> None:
    _, statistics, calibration = recovered(600)
    assert calibration is not None and calibration.rows == statistics.holdout.total == 150
    read = Calibration.from_tensors(calibration.to_tensors(), digits_profile().schema)
    assert read is not None and read.familiar is not None and read.familiar.width == len(projections())
    grid = np.linspace(0.1, 1.0, 20)
    np.testing.assert_allclose(read.chance(grid), calibration.chance(grid), atol=1e-5)


def test_few_held_out_labels_give_none() -> None:
    assert recovered(120)[2] is None


def test_weights_make_labels_worth_less() -> None:
    head, statistics, _ = recovered(600)
    one = Share.of_rows(np.zeros((1, 64)), np.zeros(1, int), 10, np.array([20.0]))
    heavy = HeadStatistics(statistics.fit, statistics.holdout + one)
    found = head_calibration(heavy, head, projections()[:0])
    assert found is not None and found.rows == int(170**2 / 550) and found.familiar is None
