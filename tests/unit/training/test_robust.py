"""Labels that lie, and labels without end: which groups make a head, and how much each counts. On drifted digits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cloud_hub.head_groups import group_of
from cloud_hub.training.head import heads
from cloud_hub.training.head_statistics import HeadStatistics, Share
from cloud_hub.training.robust import FREE_PER_CLASS, Weighing, weigh
from tests.unit.insights.worlds import digit_outputs, digits_profile, slip, unseen_digits

Array = npt.NDArray[Any]
Lie = Callable[[Array, np.random.Generator], Array]
DEVICES, EACH, SHARE = 20, 30, 0.25
LIES: Mapping[str, Lie] = {
    "shifted": lambda y, rng: (y + 1) % 10,
    "mirrored": lambda y, rng: 9 - y,
    "at random": lambda y, rng: rng.integers(0, 10, len(y)),
    "one class": lambda y, rng: np.zeros_like(y),
}


@functools.cache
def world() -> tuple[Array, Array]:
    x, y = unseen_digits()
    return digit_outputs(slip(x, seed=2))[0].astype(np.float64), y


def statistics(features: Array, labels: Array) -> HeadStatistics:
    held = np.arange(len(labels)) % 4 == 0
    return HeadStatistics(*(Share.of_rows(features[rows], labels[rows], 10) for rows in (~held, held)))


def fleet(lie: Lie = lambda y, rng: y, *, seed: int = 0, liars: int = 0) -> dict[str, HeadStatistics]:
    """Twenty devices with thirty labels each, by groups."""
    (features, labels), rng = world(), np.random.default_rng(seed)
    chosen = rng.permutation(600)
    found: dict[str, HeadStatistics] = {}
    for device in range(DEVICES):
        rows = chosen[device * EACH : (device + 1) * EACH]
        given = lie(labels[rows], rng) if device < liars else labels[rows]
        add(found, group(device), statistics(features[rows], given))
    return found


def group(device: int) -> str:
    return group_of(f"camera-{device}", digits_profile().schema)


def add(groups: dict[str, HeadStatistics], name: str, more: HeadStatistics) -> None:
    groups[name] = groups[name] + more if name in groups else more


def accuracy(groups: Mapping[str, HeadStatistics], weighing: Weighing | None = None) -> float:
    """Of the head that they make, on digits that nobody labelled."""
    factors = dict.fromkeys(groups, 1.0) if weighing is None else weighing.factors
    used = [found.scaled(factors[name]) for name, found in groups.items() if factors[name]]
    ((_, weight, bias),) = heads(functools.reduce(HeadStatistics.__add__, used).all, "lda", (0.1,))
    features, labels = world()
    return float(((features[600:] @ weight.T + bias).argmax(axis=1) == labels[600:]).mean())


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_two_liars_of_twenty_cost_next_to_nothing(lie: Lie) -> None:
    clean, naive, robust = [], [], []
    for seed in range(4):
        honest, poisoned = fleet(seed=seed), fleet(lie, seed=seed, liars=2)
        weighing = weigh(poisoned.items(), SHARE)
        # A group with an honest device beside the liar may stay: half of its labels are right.
        assert weighing.left_out and set(weighing.left_out) <= {group(0), group(1)}
        clean.append(accuracy(honest))
        naive.append(accuracy(poisoned))
        robust.append(accuracy(poisoned, weighing))
    assert np.mean(robust) >= np.mean(clean) - 0.02
    assert np.mean(naive) < np.mean(robust), "the lie does harm where it is believed"


@pytest.mark.parametrize("seed", range(8))
def test_of_honest_devices_none_is_left_out(seed: int) -> None:
    weighing = weigh(fleet(seed=seed).items(), SHARE)
    assert not weighing.left_out and not weighing.bounded and not weighing.disputed
    assert set(weighing.factors.values()) == {1.0}


def test_devices_that_see_few_of_the_classes_are_not_liars() -> None:
    (features, labels), groups = world(), dict[str, HeadStatistics]()
    for device in range(DEVICES):  # a camera at a line where three digits come by
        rows = np.flatnonzero(np.isin((labels - device) % 10, (0, 1, 2)))[device::7][:30]
        add(groups, group(device), statistics(features[rows], labels[rows]))
    assert not weigh(groups.items(), SHARE).left_out


def test_a_flood_from_one_device_weighs_no_more_than_its_share() -> None:
    features, labels = world()
    rows = np.random.default_rng(0).integers(0, 600, 20_000)
    # It says the truth of everything but what it is paid for: every 3 is an 8. That alone is no contradiction.
    lie = np.where(labels[rows] == 3, 8, labels[rows])
    groups = fleet()
    add(groups, group(3), statistics(features[rows], lie))
    weighing = weigh(groups.items(), SHARE)
    assert weighing.bounded == (group(3),)
    masses = {name: found.all.mass * weighing.factors[name] for name, found in groups.items()}
    others = sum(masses.values()) - masses[group(3)]
    assert masses[group(3)] == pytest.approx(max(FREE_PER_CLASS * 10, others * SHARE / (1 - SHARE)))
    assert accuracy(groups) < accuracy(groups, weighing)
    assert accuracy(groups, weighing) >= accuracy(fleet()) - 0.03


def test_a_flood_of_lies_is_left_out_however_many_they_are() -> None:
    features, labels = world()
    rows = np.random.default_rng(0).integers(0, 600, 20_000)
    groups = fleet()
    add(groups, group(3), statistics(features[rows], (labels[rows] + 1) % 10))
    weighing = weigh(groups.items(), SHARE)
    assert set(weighing.left_out) == {group(3)}
    assert accuracy(groups, weighing) >= accuracy(fleet()) - 0.02 > accuracy(groups)


def test_features_that_are_none_are_left_out() -> None:
    features, labels = world()
    groups = fleet()
    add(groups, group(3), statistics(1e6 * features[:30], labels[:30]))
    weighing = weigh(groups.items(), SHARE)
    assert set(weighing.left_out) == {group(3)} and "times as large" in weighing.left_out[group(3)]


def test_more_than_a_third_that_says_another_thing_is_no_minority() -> None:
    features, labels = world()
    parts = np.array_split(np.arange(600), 10)
    scale = [100.0 if part < 4 else 1.0 for part in range(10)]
    groups = {str(n): statistics(scale[n] * features[rows], labels[rows]) for n, rows in enumerate(parts)}
    weighing = weigh(groups.items(), SHARE)
    assert not weighing.left_out and set(weighing.disputed) >= {"0", "1", "2", "3"}
    assert set(weighing.factors.values()) == {1.0}


def test_who_is_alone_has_nobody_to_be_compared_with() -> None:
    features, labels = world()
    alone = {"7": statistics(features[:600], labels[:600])}
    assert weigh(alone.items(), SHARE).factors == {"7": 1.0}
    strays = alone | {"9": statistics(features[600:603], labels[600:603])}
    assert weigh(strays.items(), SHARE).factors == pytest.approx({"7": FREE_PER_CLASS * 10 / 600, "9": 1.0})


def test_an_owner_may_have_every_label_count_the_same() -> None:
    groups = fleet(LIES["shifted"], liars=2)
    weighing = weigh(groups.items(), 1.0)
    assert set(weighing.factors.values()) == {1.0} and not weighing.left_out and not weighing.bounded


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17])
def test_no_group_is_above_its_share(count: int) -> None:
    rng = np.random.default_rng(count)
    features, labels = world()
    groups = {str(n): statistics(features[:300], labels[:300]).scaled(float(rng.lognormal(2, 2))) for n in range(count)}
    weighing = weigh(groups.items(), SHARE)
    masses = {name: found.all.mass * weighing.factors[name] for name, found in groups.items()}
    most = max(max(SHARE, 2 / (count + 1)) * sum(masses.values()), FREE_PER_CLASS * 10)
    assert max(masses.values()) <= most * (1 + 1e-9)
    assert not weighing.left_out


def test_nobody_has_labelled() -> None:
    assert not weigh([], SHARE).factors
