"""Which groups of devices a head is made of, and how much each of them counts. Pure.

Labels come from whoever holds a device. So the statistics of groups of devices are looked at beside one another before
they are added up:

- A group **contradicts** the others when its labels lie where the others' do not. The centre of each class is the
  median of the groups' means, coordinate by coordinate, which a minority cannot move (median of means: Nemirovsky and
  Yudin 1983; for learning from many sources: Yin et al. 2018). In the metric of all features, whose scatter no label
  can change, a linear discriminant from these centres gives each row the margin of its label over the mean of all
  classes; being linear, its sum over a group follows from the group's sums alone. Honest groups have much of the margin
  that the centres have themselves, one with flipped labels none. One with far less of it than is usual is left out.
- No group **weighs more** than a share of the whole: one that sends labels without end is scaled down.

Where more than a third of the groups contradict the others, none is left out: that is no minority, but another world.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from cloud_hub.training.head_statistics import Floats, HeadStatistics

#: With fewer groups nobody can say which of them is wrong.
FEWEST_GROUPS = 3
#: A group whose labels agree with the centres by less than this share of what is usual, and a standard error, is
#: left out. With 30 labels of drifted digits honest groups agree by 0.6 to 1.1, 0.8 in the middle; flipped ones by -0.1
#: to 0.2, and half of each by 0.3 to 0.4.
LEAST_AGREEMENT = 0.6
#: Of the groups, at most so many are left out.
MOST_LEFT_OUT = 1 / 3
#: Squared features that are so many times those of the middle group are no features.
MOST_LARGER = 10.0
#: Labels of a class that give a group a full vote about its centre, and all labels that give it one about the scatter:
#: a flood has no more votes than anybody.
FULL_VOTE, FULL_SCATTER = 5.0, 50.0
#: Labels for each class that a group may always weigh, as many as a head needs at all: strays elsewhere do not make the
#: one place where labels are given count for nothing.
FREE_PER_CLASS = 20
#: Share of the mean variance that every direction of the scatter gets, so that it can be inverted.
SHRINKAGE = 0.1
#: Of a margin's variance over all rows, what is at least within the classes: centres that few labels made scatter.
LEAST_VARIANCE = 0.1


@dataclass(frozen=True, eq=False)
class Weighing:
    """How much each group counts.

    Attributes:
        factors: group → what its statistics are multiplied by: 1, less where it weighs too much, 0 left out.
        left_out: group → why, a sentence for a person.
        bounded: groups that weigh too much.
        disputed: groups that contradict the others, and are too many to be left out.
    """

    factors: Mapping[str, float]
    left_out: Mapping[str, str] = field(default_factory=dict)
    bounded: tuple[str, ...] = ()
    disputed: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Group:
    """What is kept of a group while all are looked at: no Gram matrix.

    Attributes:
        name: its name.
        weight: Σ w per class, float64 [K].
        square: Σ w² per class.
        sums: Σ w x per class, float64 [K, F].
        size: mean squared length of its rows.
    """

    name: str
    weight: Floats
    square: Floats
    sums: Floats
    size: float

    @property
    def mass(self) -> float:
        return float(self.weight.sum())


def weigh(groups: Iterable[tuple[str, HeadStatistics]], max_share: float) -> Weighing:
    """How much each group counts in the statistics of all.

    Args:
        groups: name and statistics of each; read one by one, since all of them may not fit into memory. One without
            labels is nobody.
        max_share: of the whole that one group weighs at most, above 0; 1: every label counts the same, whoever gave it.
    """
    found: list[_Group] = []
    moment, votes = np.zeros((1, 1)), 0.0
    for name, statistics in groups:
        rows = statistics.all
        if rows.mass <= 0:
            continue
        found.append(_Group(name, rows.weight, rows.square, rows.sums, float(np.trace(rows.gram)) / rows.mass))
        vote = min(rows.mass, FULL_SCATTER)
        moment, votes = moment + rows.gram * (vote / rows.mass), votes + vote
    if max_share >= 1 or not found:
        return Weighing({group.name: 1.0 for group in found})
    against = _against(found, moment, votes) if len(found) >= FEWEST_GROUPS else {}
    disputed: tuple[str, ...] = ()
    if len(against) > MOST_LEFT_OUT * len(found):
        against, disputed = {}, tuple(against)
    masses = {group.name: group.mass for group in found if group.name not in against}
    most = max(_most(list(masses.values()), max_share), FREE_PER_CLASS * len(found[0].weight))
    factors = {name: min(1.0, most / mass) for name, mass in masses.items()}
    bounded = tuple(name for name, factor in factors.items() if factor < 1)
    return Weighing(factors | dict.fromkeys(against, 0.0), against, bounded, disputed)


def _most(masses: list[float], max_share: float) -> float:
    """What a group may weigh, so that none has a larger share of all; of few groups one may have twice an equal one."""
    share = max(max_share, 2 / (len(masses) + 1))
    ordered = sorted(masses, reverse=True)
    for capped, largest in enumerate(ordered):
        most = share * sum(ordered[capped:]) / (1 - capped * share) if capped * share < 1 else 0.0
        if largest <= most:
            return most
    return ordered[-1]


def _against(groups: list[_Group], moment: Floats, votes: float) -> dict[str, str]:
    """Groups that contradict the others, and why; the moment is Σ x xᵀ over the rows that have ``votes`` together."""
    middle = float(np.median([group.size for group in groups]))
    against = {
        group.name: f"its features are {group.size / middle:.0f} times as large as those of the others"
        for group in groups
        if middle > 0 and group.size > MOST_LARGER * middle
    }
    rule = _Margins.of(groups, moment / votes)
    found = {group.name: rule.agreement(group) for group in groups if rule.expected(group) > 0}
    usual = float(np.median(list(found.values()))) if found else 0.0
    for group in groups:
        agreement = found.get(group.name, usual)
        if usual > 0 and agreement + rule.chance(group) < LEAST_AGREEMENT * usual:
            agrees = f"its labels agree with those of the others by {agreement:.2f}"
            against[group.name] = f"{agrees}, where {usual:.2f} is usual"
    return against


@dataclass(frozen=True, eq=False)
class _Margins:
    """Of each class the margin over the mean of all, linear in the features x.

    Attributes:
        weight: float64 [K, F]; 0 for a class that nobody has.
        offset: float64 [K]; margins are x · weightᵀ + offset.
        usual: at the centre of each class, float64 [K].
        variance: of the rows of a class, float64 [K].
    """

    weight: Floats
    offset: Floats
    usual: Floats
    variance: Floats

    @classmethod
    def of(cls, groups: list[_Group], moment: Floats) -> _Margins:
        """From the median of the groups' means, and the second moment of all rows, [F, F]."""
        count = np.stack([group.weight for group in groups])
        seen = count.sum(axis=0) > 0
        means = np.stack([group.sums for group in groups]) / np.where(count > 0, count, 1.0)[..., None]
        masses = np.array([group.mass for group in groups])
        votes = np.minimum(masses, FULL_SCATTER)
        mean = (votes / masses / votes.sum()) @ np.stack([group.sums.sum(axis=0) for group in groups])
        centres = np.where(seen[:, None], _median(means, np.minimum(count, FULL_VOTE)) - mean, 0.0)
        covariance = moment - np.outer(mean, mean)
        scale = max(float(np.trace(covariance)) / len(covariance), 1e-30)
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * scale * np.eye(len(covariance))
        weight: Floats = np.linalg.solve(shrunk, centres.T).T.astype(np.float64)
        offset = -0.5 * np.sum(weight * centres, axis=1)
        weight = np.where(seen[:, None], weight - weight[seen].mean(axis=0), 0.0)
        offset = np.where(seen, offset - offset[seen].mean(), 0.0)
        share = count.sum(axis=0) / count.sum()
        of_all = np.einsum("kf,fg,kg->k", weight, covariance, weight, optimize=True)
        of_centres = ((weight @ centres.T) ** 2) @ share
        variance = np.asarray(np.maximum(of_all - of_centres, LEAST_VARIANCE * of_all))
        usual = np.asarray(np.sum(weight * centres, axis=1) + offset)
        return cls(weight, np.asarray(offset - weight @ mean), usual, variance)

    def expected(self, group: _Group) -> float:
        """The margins of a group's labels, if all its rows lay at the centres."""
        return float(group.weight @ self.usual)

    def agreement(self, group: _Group) -> float:
        """The margins that its labels have, as a share of that."""
        return float(np.sum(self.weight * group.sums) + self.offset @ group.weight) / self.expected(group)

    def chance(self, group: _Group) -> float:
        """Standard error of the agreement."""
        return float(np.sqrt(group.square @ self.variance)) / max(self.expected(group), 1e-30)


def _median(values: Floats, votes: Floats) -> Floats:
    """Median of values [G, K, F] over the groups, each coordinate on its own, with votes [G, K]: float64 [K, F]."""
    order = np.argsort(values, axis=0)
    weights = np.take_along_axis(np.broadcast_to(votes[..., None], values.shape), order, axis=0)
    passed = np.cumsum(weights, axis=0)
    at = np.argmax(passed >= 0.5 * passed[-1], axis=0)
    return np.asarray(np.take_along_axis(np.take_along_axis(values, order, axis=0), at[None], axis=0)[0])
