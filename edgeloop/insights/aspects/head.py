"""Head statistics: all that a new last layer needs to know of labelled features, as sums.

For the labelled rows x with class k and weight w: n_k = Σ 1, s_k = Σ w x, and over all classes the Gram matrix
G = Σ w x xᵀ. The linear discriminant and ridge regression in closed form, and their exact held-out squared error,
follow from these. They are kept twice: ``fit`` for three labels in four, ``holdout`` for the fourth
(`edgeloop.insights.holdout_share`).

A weight is what its label stands for: the inverse of the probability with which its input was chosen to be labelled
(Horvitz and Thompson 1952), so that the sums are those of the traffic and not of what somebody liked to label. What
weights add to counts is kept apart, Σ (w - 1) and Σ (w² - 1): zero, and not sent, where every label weighs 1.
They tell how many equal labels the weighted ones are worth, (Σ w)² / Σ w² (Kish 1965).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from edgeloop.insights.aspects.base import MAX_VALUE, MAX_WEIGHT, ROUNDING, Arrays, Aspect, Labels, refuse
from edgeloop.insights.aspects.counts import FEEDBACK
from edgeloop.insights.sizes import Array, ArraySpec, Floats, Sizes

SHARES = ("fit", "holdout")
#: Of each share.
PARTS = ("count", "excess", "sum", "gram")
#: Both shares together must fit an insights message of 16 MiB with the rest of the window. 1,280 features (MobileNetV2)
#: of 10 classes take 13.3 MB. A model that needs more has no head statistics: its arrays have size 0.
MAX_BYTES = 15 << 20
#: Up to this width a kept index of the triangle (8 F² bytes) beats a loop over its rows; above, it is too large.
INDEXED_WIDTH = 256


class Head(Aspect):
    """For each share: ``…_count`` int64 [K], ``…_excess`` float64 [2, K], ``…_sum`` float64 [K, F], ``…_gram`` float64.

    The Gram matrix is symmetric; its upper triangle is kept row by row, [F(F+1)/2]. ``…_excess`` is Σ (w - 1) and
    Σ (w² - 1) of each class.
    """

    name = "head"

    def arrays(self, sizes: Sizes) -> dict[str, ArraySpec]:
        """See :class:`Aspect`."""
        classes, width = sizes.classes, sizes.features
        if 2 * 8 * (packed_size(width) + classes * width) > MAX_BYTES:
            width = 0
        specs = {}
        classes = classes if width else 0
        for share in SHARES:
            specs[f"head_{share}_count"] = ArraySpec((classes,), "int64")
            specs[f"head_{share}_excess"] = ArraySpec((2, classes), "float64")
            specs[f"head_{share}_sum"] = ArraySpec((classes, width), "float64")
            specs[f"head_{share}_gram"] = ArraySpec((packed_size(width),), "float64")
        return specs

    def feedback(self, into: Arrays, labels: Labels) -> None:
        """See :class:`Aspect`."""
        if labels.features is None or not len(into["head_fit_count"]):
            return
        known, held, weights = labels.labels[labels.known], labels.holdout[labels.known], labels.weights[labels.known]
        for share, chosen in (("fit", ~held), ("holdout", held)):
            if chosen.any():
                _add(into, share, labels.features[chosen], known[chosen], weights[chosen])

    def check(self, arrays: Arrays) -> None:
        """See :class:`Aspect`."""
        labelled = sum(int(arrays[f"head_{share}_count"].sum()) for share in SHARES)
        refuse(labelled > arrays["counts"][FEEDBACK], "the head statistics hold more labels than were given")
        for share in SHARES:
            _check_share(*(arrays[f"head_{share}_{part}"] for part in PARTS))


def packed_size(width: int) -> int:
    """Elements of the upper triangle, diagonal included."""
    return width * (width + 1) // 2


def packed_diagonal(width: int) -> Array:
    """Where the diagonal lies in the packed triangle: int64 [F]."""
    rows = np.arange(width)
    return rows * width - rows * (rows - 1) // 2


def unpack_gram(packed: Floats, width: int) -> Floats:
    """The symmetric matrix float64 [F, F] of its packed upper triangle."""
    full = np.zeros((width, width))
    for row, part in _rows(packed, width):
        full[row, row:] = part
        full[row:, row] = part
    return full


def _rows(packed: Array, width: int) -> Iterator[tuple[int, Array]]:
    """(row, view of its part of the packed triangle)."""
    start = 0
    for row in range(width):
        yield row, packed[start : start + width - row]
        start += width - row


@lru_cache(maxsize=4)
def _upper(width: int) -> tuple[Array, Array]:
    return np.triu_indices(width)


def _add(into: Arrays, share: str, features: Floats, labels: Array, weights: Floats) -> None:
    count, sums, gram = (into[f"head_{share}_{part}"] for part in ("count", "sum", "gram"))
    count += np.bincount(labels, minlength=len(count))
    weighted = np.zeros((len(count), len(labels)))
    weighted[labels, np.arange(len(labels))] = weights
    sums += weighted @ features
    if (weights == 1.0).all():
        product = features.T @ features
    else:
        excess = into[f"head_{share}_excess"]
        excess[0] += np.bincount(labels, weights - 1.0, minlength=len(count))
        excess[1] += np.bincount(labels, weights * weights - 1.0, minlength=len(count))
        product = (features * weights[:, None]).T @ features
    if len(product) <= INDEXED_WIDTH:
        gram += product[_upper(len(product))]
    else:
        for row, part in _rows(gram, len(product)):
            np.add(part, product[row, row:], out=part)


def _check_share(count: Array, excess: Array, sums: Array, gram: Array) -> None:
    width, labelled = sums.shape[1], int(count.sum())
    if labelled == 0:
        refuse(sums.any() or gram.any() or excess.any(), "there are head statistics without labels")
        return
    refuse(np.any(excess < 0), "a label of the head statistics weighs less than 1")
    weight, square = count + excess
    # 1 ≤ w ≤ MAX_WEIGHT, and by Cauchy and Schwarz (Σ w)² ≤ n Σ w².
    refuse(np.any(weight > count * MAX_WEIGHT * (1 + ROUNDING)), f"labels weigh more than {MAX_WEIGHT:g} each")
    refuse(np.any(square > weight * MAX_WEIGHT * (1 + ROUNDING)), "squares of weights are beyond what weights give")
    refuse(np.any(weight * weight > count * square * (1 + ROUNDING)), "weights are larger than their squares allow")
    total = float(weight.sum())
    diagonal = gram[packed_diagonal(width)]
    refuse(np.any(sums[count == 0]), "a class without labels has features")
    refuse(np.any(np.abs(sums) > total * MAX_VALUE), f"a class sum is beyond {total:g} rows of {MAX_VALUE:g}")
    refuse(np.any(diagonal < 0), "the Gram matrix has a negative diagonal")
    refuse(np.any(diagonal > total * MAX_VALUE**2), f"the Gram matrix is beyond {total:g} rows of {MAX_VALUE:g}")
    # Scatter within the classes cannot be negative: Σ_k s_k² / Σ_k w ≤ diag G.
    seen = count > 0
    between = (sums[seen] / np.sqrt(weight[seen])[:, None]) ** 2
    refuse(
        np.any(between.sum(axis=0) > diagonal * (1 + ROUNDING)), "the class sums are larger than the Gram matrix allows"
    )
    refuse(_breaks_cauchy_schwarz(gram, np.sqrt(diagonal) * (1 + ROUNDING)), "the Gram matrix is not one")


def _breaks_cauchy_schwarz(gram: Array, root: Array) -> bool:
    """Whether |G_ij| ≤ √(G_ii G_jj) fails anywhere."""
    width = len(root)
    if width <= INDEXED_WIDTH:
        rows, columns = _upper(width)
        return bool(np.any(np.abs(gram) > root[rows] * root[columns]))
    return any(bool(np.any(np.abs(part) > root[row] * root[row:])) for row, part in _rows(gram, width))
