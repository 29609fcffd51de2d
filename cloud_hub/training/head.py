"""A new last layer in closed form from head statistics. Pure: sums in, weights out; no row is ever seen.

Two methods, both linear in the features x, with Σ the covariance within the classes, S that of all rows, μ_k the class
means, π_k the class shares and t = tr(·)/F, which makes a regularisation mean the same for features of any scale:

- ``lda``, the linear discriminant with a shrunk covariance (Friedman 1989):
  Σ_s = (1-s) Σ + s t I,  w_k = Σ_s⁻¹ μ_k,  b_k = ln π_k - ½ w_k·μ_k.
- ``ridge``, least squares of the one-hot labels on x with a penalty (Hoerl and Kennard 1970):
  W = C (S + λ t I)⁻¹ with C the covariance of labels and features,  b = π - W x̄.

Each grid is fitted on the ``fit`` share and judged on the ``holdout`` share. The winner is then fitted again on both,
since a quarter of the labels is worth having; what is reported stays that of the head which never saw them.

The choice is by :func:`holdout_loss`, not by the exact squared error: ``docs/decisions/head-choice.md`` says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cloud_hub.training.head_judge import DRAWS_TO_CHOOSE, USUAL_SIZE, Judge, calibrated
from cloud_hub.training.head_statistics import Floats, HeadError, HeadStatistics, Ints, Share

METHODS = ("ridge", "lda")
#: Relative regularisations that are tried: shares of the mean variance. Finer steps change no digit's accuracy.
SHRINKAGES = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
PENALTIES = (1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
#: A class mean from fewer rows than this is chance.
MIN_PER_CLASS = 3
#: The logit of a class that is never answered: softmax gives it 0 beside any other.
NEVER = -1e3
#: Eigenvalues below −this × the largest are no rounding: the matrix is not a covariance.
NEGATIVE = 1e-6


@dataclass(frozen=True, eq=False)
class HeadFit:
    """A new last layer.

    Attributes:
        weight: float64 [K, F], fitted on all labels; logits are x · weightᵀ + bias.
        bias: float64 [K].
        method: ``ridge`` or ``lda``.
        regularisation: the relative λ or s that was chosen.
        holdout_error: squared error of the head that was fitted without the held-out share; see :func:`holdout_error`.
        holdout_accuracy: its accuracy there under the normal approximation; see :func:`holdout_accuracy`.
        holdout_loss: its cross-entropy there, likewise; the choice was made by it. See :func:`holdout_loss`.
        trial_weight: that head's weight, float64 [K, F].
        trial_bias: that head's bias, float64 [K].
        labels: rows that the head was fitted on, both shares.
    """

    weight: Floats
    bias: Floats
    method: str
    regularisation: float
    holdout_error: float
    holdout_accuracy: float
    holdout_loss: float
    trial_weight: Floats
    trial_bias: Floats
    labels: int


def fit_head(
    stats: HeadStatistics,
    *,
    methods: Sequence[str] = METHODS,
    min_per_class: int = MIN_PER_CLASS,
    reserved: Sequence[int] = (),
) -> HeadFit:
    """The best head that the statistics give.

    Args:
        stats: merged head statistics of one backbone.
        methods: of `METHODS`.
        min_per_class: labels that every class must have in the fit share.
        reserved: classes that the present head never answers and that nobody has labelled yet: the new head never
            answers them either. With its first labels such a class is one like any other, on the same backbone.

    Raises:
        HeadError: too few labels, of one class or held out; features without variance; sums that no rows have.
    """
    if reserved:
        known = np.setdiff1d(np.arange(stats.fit.classes), reserved)
        return _widened(fit_head(stats.only(known), methods=methods, min_per_class=min_per_class), known, stats)
    _check(stats, methods, min_per_class)
    judge = Judge(stats.holdout, DRAWS_TO_CHOOSE)
    least, size = math.inf, USUAL_SIZE
    for method in methods:
        for regularisation, weight, bias in heads(stats.fit, method):
            _, loss, size = calibrated(judge.draws(weight, bias), size)  # heads that are neighbours are much alike
            if loss < least:
                least, chosen = loss, (method, regularisation, weight, bias, size)
    method, regularisation, trial_weight, trial_bias, size = chosen
    _, weight, bias = next(heads(stats.all, method, (regularisation,)))
    draws = Judge(stats.holdout).draws(trial_weight, trial_bias)
    scale, loss, _ = calibrated(draws, size)
    return HeadFit(
        weight=scale * weight,
        bias=scale * bias,
        method=method,
        regularisation=regularisation,
        holdout_error=holdout_error(stats.holdout, trial_weight, trial_bias),
        holdout_accuracy=draws.accuracy,
        holdout_loss=loss,
        trial_weight=scale * trial_weight,
        trial_bias=scale * trial_bias,
        labels=stats.labels,
    )


def _widened(head: HeadFit, known: Ints, stats: HeadStatistics) -> HeadFit:
    """A head of some classes as one of all; it never answers the others."""
    weights, biases = [], []
    for weight, bias in ((head.weight, head.bias), (head.trial_weight, head.trial_bias)):
        wide, low = np.zeros((stats.fit.classes, stats.fit.features)), np.full(stats.fit.classes, NEVER)
        wide[known], low[known] = weight, bias
        weights.append(wide)
        biases.append(low)
    return replace(head, weight=weights[0], bias=biases[0], trial_weight=weights[1], trial_bias=biases[1])


def holdout_error(stats: HeadStatistics | Share, weight: Floats, bias: Floats) -> float:
    """Mean squared error of the one-hot labels, regressed on the logits: exact, from sums alone.

    The labels y are predicted by a·z + c with z the logits, less their mean over the classes, one scale a ≥ 0 and an
    offset c per class, both the best for this share. So heads of any kind and scale can be compared: ridge, a
    discriminant, the present one. With covariances over the share: tr Cov(y) − (tr Cov(y, z))² / tr Cov(z).

    Args:
        stats: statistics, of which the held-out share is taken, or a share of rows that the head was not fitted on.
        weight: float64 [K, F].
        bias: float64 [K]; it goes into c and has no influence.

    Returns:
        0 (perfect) … tr Cov(y) (no better than the class shares).
    """
    share = held_out(stats)
    weight = weight - weight.mean(axis=0)  # what all classes share changes no prediction
    together = float(np.sum(weight * share.cross_covariance))
    spread = float(np.einsum("kf,fg,kg->", weight, share.total_covariance, weight, optimize=True))
    chance = 1.0 - float(np.sum(share.priors**2))
    if spread <= 0.0 or together <= 0.0:
        return chance
    return max(chance - together**2 / spread, 0.0)


def holdout_accuracy(stats: HeadStatistics | Share, weight: Floats, bias: Floats) -> float:
    """Accuracy on a share under the normal approximation.

    Within class k the logits have the mean W m_k + b and the covariance W Σ Wᵀ of the share; for normal logits the
    probability that the right one is largest follows, here by a fixed set of draws.

    Returns:
        0…1.
    """
    return Judge(held_out(stats)).draws(weight, bias).accuracy


def holdout_class_accuracy(stats: HeadStatistics | Share, weight: Floats, bias: Floats) -> Floats:
    """The same of each class's rows alone: float64 [K], 0…1; NaN for a class without rows."""
    draws = Judge(held_out(stats)).draws(weight, bias)
    right = draws.logits.argmax(axis=0) == draws.labels
    found = np.full(len(weight), np.nan)
    for k in np.unique(draws.labels):
        found[k] = right[draws.labels == k].mean()
    return found


def calibrate(stats: HeadStatistics | Share, weight: Floats, bias: Floats) -> float:
    """The factor for logits that makes softmax's confidence mean something.

    It is the scale with the least cross-entropy under the normal approximation of :func:`holdout_accuracy` (temperature
    scaling, Guo et al. 2017, from moments). A positive factor changes no prediction. Needed since ridge gives shares,
    not log-probabilities, and a discriminant from few rows is far too sure.

    Returns:
        A factor from 1e-3 to 1e3.
    """
    return calibrated(Judge(held_out(stats)).draws(weight, bias)).scale


def holdout_loss(stats: HeadStatistics | Share, weight: Floats, bias: Floats) -> float:
    """Cross-entropy on a share under the normal approximation, at the best scale: smooth, where accuracy has steps.

    Returns:
        ≥ 0, in nats; heads that differ by a positive factor, or by a term that all classes share, have the same.
    """
    return calibrated(Judge(held_out(stats)).draws(weight, bias)).loss


def held_out(stats: HeadStatistics | Share) -> Share:
    """The share to judge a head on."""
    return stats.holdout if isinstance(stats, HeadStatistics) else stats


def heads(share: Share, method: str, grid: Sequence[float] | None = None) -> Iterator[tuple[float, Floats, Floats]]:
    """Heads along a grid of regularisations; one eigendecomposition serves all of it.

    Args:
        share: what they are fitted on; every class has rows.
        method: ``lda`` or ``ridge``.
        grid: relative regularisations > 0; the method's own grid by default.

    Yields:
        (regularisation, weight float64 [K, F], bias float64 [K]), not calibrated.
    """
    if method == "lda":
        values, vectors, scale = _eigen(share.within_covariance)
        means = share.class_means
        rotated = means @ vectors
        for shrinkage in grid or SHRINKAGES:
            weight = (rotated / ((1 - shrinkage) * values + shrinkage * scale)) @ vectors.T
            yield shrinkage, weight, np.log(share.priors) - 0.5 * np.sum(weight * means, axis=1)
    else:
        values, vectors, scale = _eigen(share.total_covariance)
        rotated = share.cross_covariance @ vectors
        for penalty in grid or PENALTIES:
            weight = (rotated / (values + penalty * scale)) @ vectors.T
            yield penalty, weight, share.priors - weight @ share.mean


def _eigen(covariance: Floats) -> tuple[Floats, Floats, float]:
    """Eigenvalues [F], eigenvectors [F, F] and the mean variance, which is > 0."""
    values, vectors = np.linalg.eigh(covariance)
    if not values[-1] > 0:
        raise HeadError(
            "the features of the labelled rows do not vary within the classes; is the right output exposed?"
        )
    if values[0] < -NEGATIVE * values[-1]:
        raise HeadError("the Gram matrix is not that of any rows; a device sends wrong statistics, leave it out")
    values = np.maximum(values, 0.0)
    return values, vectors, float(values.mean())


def _check(stats: HeadStatistics, methods: Sequence[str], min_per_class: int) -> None:
    if unknown := [method for method in methods if method not in METHODS]:
        raise HeadError(f"unknown methods {unknown}; choose from {list(METHODS)}")
    if not methods:
        raise HeadError(f"no method was given; choose from {list(METHODS)}")
    if few := [k for k, count in enumerate(stats.fit.count) if count < max(min_per_class, 1)]:
        counts = ", ".join(f"{k}: {int(stats.fit.count[k])}" for k in few[:10])
        raise HeadError(
            f"{len(few)} of {stats.fit.classes} classes have fewer than {min_per_class} labels to fit on ({counts}); "
            "label more inputs of these classes"
        )
    if stats.holdout.total < stats.holdout.classes:
        raise HeadError(
            f"{stats.holdout.total} labels are held out, too few to judge a head of {stats.holdout.classes} classes; "
            "label more inputs"
        )
