"""Accuracy without labels, by audits and by chosen labels: what each says, and when it is not to be trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeloop.insights import Window, drawn_rows
from edgeloop.insights.accuracy import FEWEST_ROWS, Z, assess, audited, estimate, labelled, wilson
from tests.doubles.digits import splits
from tests.unit.insights.worlds import digit_outputs, digits_profile, digits_window, slip

Array = npt.NDArray[Any]


def truth(x: Array, y: Array) -> float:
    return float((digit_outputs(x)[1].argmax(axis=1) == y).mean())


def marks(chosen: Any) -> Array:
    found = np.zeros(len(splits().test.y), bool)
    found[chosen] = True
    return found


def test_without_drift_the_estimate_is_near_and_trusted() -> None:
    test = splits().test
    found = estimate(digits_window(test.x), digits_profile())
    assert found.expected is not None and found.trusted and found.reason == ""
    assert abs(found.expected.value - truth(test.x, test.y)) < 0.03
    assert found.expected.low < truth(test.x, test.y) < found.expected.high
    assert found.beyond is not None and found.beyond < 0.1


def test_a_slipped_camera_is_warned_of() -> None:
    test = splits().test
    x = slip(test.x, 1)
    found = estimate(digits_window(x), digits_profile())
    assert found.expected is not None and abs(found.expected.value - truth(x, test.y)) > 0.05
    assert not found.trusted and "farther from the validation data" in found.reason


def test_the_parts_of_a_window_say_the_same_as_the_whole() -> None:
    x = splits().test.x
    parts = digits_window(x[:200]).merge(digits_window(x[200:]))
    whole, merged = estimate(digits_window(x), digits_profile()), estimate(parts, digits_profile())
    assert whole.expected is not None and merged.expected is not None
    assert merged.expected.value == pytest.approx(whole.expected.value, abs=1e-6)
    assert (merged.beyond, merged.trusted) == (whole.beyond, whole.trusted)


def test_it_says_why_it_cannot_say() -> None:
    x = splits().test.x
    few, full = estimate(digits_window(x[: FEWEST_ROWS - 1]), digits_profile()), digits_window(x)
    assert few.expected is not None and not few.trusted and "too few" in few.reason
    assert estimate(full, digits_profile().with_calibration(None)).reason.startswith("this release has no calibration")
    assert estimate(Window.zero(digits_profile().schema), digits_profile()).expected is None
    full.arrays["expected_rows"][1:] = 0  # as where rows are observed by their scores alone
    blind = estimate(full, digits_profile())
    assert not blind.trusted and "not known" in blind.reason
    moved = digits_window(x)
    moved.arrays["expected"][0] *= 0.9
    assert "confidence has moved" in estimate(moved, digits_profile()).reason


def test_audits_of_a_drifted_window_find_the_truth_that_the_estimate_misses() -> None:
    test = splits().test
    x = slip(test.x, 2)
    right = truth(x, test.y)
    shares, held = [], []
    for number in range(40):
        audit = np.array([bool(drawn_rows(f"{number}-{row}", 1, 0.1)) for row in range(len(x))])
        found = audited(digits_window(x, audit=audit, y=test.y))
        assert found.accuracy is not None and (found.drawn, found.labelled) == (audit.sum(), audit.sum())
        shares.append(found.accuracy.value)
        held.append(found.accuracy.low <= right <= found.accuracy.high)
    assert np.mean(shares) == pytest.approx(right, abs=0.03)
    assert np.mean(held) >= 0.85


def test_an_audit_that_contradicts_the_estimate_takes_its_trust_away() -> None:
    test = splits().test
    wrong = (test.y + 1) % 10  # a world in which all answers are wrong, and look as ever
    audit = marks(slice(0, 60))
    window = digits_window(test.x, audit=audit, y=wrong)
    assert estimate(window, digits_profile()).trusted
    found = assess(window, digits_profile())
    assert not found.estimate.trusted and found.estimate.reason.startswith("the audits say")
    assert assess(digits_window(test.x, audit=audit, y=test.y), digits_profile()).estimate.trusted


def test_labels_of_the_unsure_answers_alone_do_not_speak_for_all() -> None:
    test = splits().test
    sure = digit_outputs(test.x)[1].max(axis=1)
    unsure = labelled(digits_window(test.x, label=marks(np.argsort(sure)[:100]), y=test.y))
    assert unsure.plain is not None and unsure.plain.high < truth(test.x, test.y)
    assert unsure.weighted is None


def test_labels_chosen_by_confidence_are_weighted_back() -> None:
    test = splits().test
    rng = np.random.default_rng(5)
    sure = digit_outputs(test.x)[1].max(axis=1)
    chosen = rng.random(len(sure)) < np.where(sure < np.median(sure), 0.8, 0.2)
    found = labelled(digits_window(test.x, label=chosen, y=test.y))
    assert found.plain is not None and found.weighted is not None
    right = truth(test.x, test.y)
    assert abs(found.weighted.value - right) < abs(found.plain.value - right)
    assert found.weighted.low <= right <= found.weighted.high


def test_audits_are_in_no_other_count_of_labels_than_all() -> None:
    test = splits().test
    window = digits_window(test.x, audit=marks(slice(0, 50)), label=marks(slice(50, 80)), y=test.y)
    assert window.arrays["audits"].sum(axis=1).tolist()[:2] == [50, 50]
    assert window.arrays["expected_labels"][0].sum() == window.arrays["confusion"].sum() == 30
    assert window.feedback == 80


@pytest.mark.parametrize(("right", "rows"), [(0, 1), (1, 1), (0, 40), (40, 40), (37, 40), (950, 1000)])
def test_the_interval_holds_its_value_and_stays_within_bounds(right: int, rows: int) -> None:
    found = wilson(right / rows, rows)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low < 2 * Z
    if 0 < right < rows:
        assert wilson(right / rows, rows, 4.0).high < found.high
