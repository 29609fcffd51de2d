"""Golden cases: a device must reproduce the reference outputs before it serves a release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.package import Package
from edgeloop.records import dataclass
from edgeloop.runtime.errors import InferenceError
from edgeloop.runtime.session import ModelSession

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """How far an output may be from its reference.

    Attributes:
        absolute: largest difference, as a share of the reference's range for outputs that are no probabilities.
        relative: of the reference, added to it.
        top1: least share of cases whose largest output is the reference's.
    """

    absolute: float
    relative: float
    top1: float


#: fp32 differs by the order of additions alone. fp16 has 11 bits, bf16 has 8. int8 kernels of different processors
#: (with and without VNNI) saturate and round differently, so single outputs may move, and the decision may not; int4
#: adds up in float or in int8, as the processor likes.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(1e-4, 1e-3, 1.0),
    "fp16": Tolerance(2e-2, 2e-2, 0.98),
    "bf16": Tolerance(8e-2, 8e-2, 0.95),
    "int8": Tolerance(0.15, 0.05, 0.95),
    "int4": Tolerance(0.15, 0.05, 0.95),
}


@dataclass(frozen=True)
class GoldenReport:
    """What a device got for the golden cases.

    Attributes:
        ok: the reference was reproduced within the precision's tolerance.
        cases: number of cases.
        worst_difference: largest difference, as a multiple of what was allowed (≤ 1 is good).
        top1_agreement: share of cases with the reference's decision.
        reason: why not, as a sentence; "" when ok.
    """

    ok: bool
    cases: int
    worst_difference: float
    top1_agreement: float
    reason: str


def check_golden(session: ModelSession, package: Package, deadline_s: float | None = 30.0) -> GoldenReport:
    """Run the golden cases on a session.

    Raises:
        PackageError: the package has no golden cases that can be read.
    """
    precision = package.variants[session.variant].precision
    golden = package.golden()
    reference = golden.outputs.get(precision)
    # Golden files come with the package: whoever wrote it may have written numbers without rows.
    cases = min((len(np.atleast_1d(values)) for values in golden.inputs.values()), default=0)
    if not reference or not cases:
        return GoldenReport(False, 0, np.inf, 0.0, f"golden: the package has no golden outputs for {precision}")
    try:
        found = session.run(golden.inputs, list(reference), deadline_s)
    except InferenceError as error:
        return GoldenReport(False, cases, np.inf, 0.0, f"golden: the cases could not be run: {error}")
    roles = {output.name: output.role for output in session.outputs}
    return judge(precision, roles, reference, dict(zip(reference, found, strict=True)))


def judge(
    precision: str, roles: Mapping[str, str], reference: Mapping[str, Array], found: Mapping[str, Array]
) -> GoldenReport:
    """Whether outputs are their reference's, as far as the precision allows.

    Args:
        precision: fp32, int8, …
        roles: of outputs, by name.
        reference: by name, [N, …].
        found: by name; those of the reference at least.
    """
    tolerance = TOLERANCES.get(precision, TOLERANCES["fp32"])
    cases = min((len(np.atleast_1d(values)) for values in reference.values()), default=0)
    worst, agreement, problems = 0.0, 1.0, []
    for name, expected in reference.items():
        got = found[name]
        if not isinstance(got, np.ndarray) or not got.ndim:
            problems.append(f"output {name} is no tensor with rows")
            continue
        if got.shape != expected.shape:
            problems.append(f"output {name} has the shape {got.shape}, its reference {expected.shape}")
            continue
        distance, agrees = _compare(roles.get(name, "other"), got, expected, tolerance)
        worst, agreement = max(worst, distance), min(agreement, agrees)
        if not distance <= 1.0:  # not "> 1": a NaN has to fail
            problems.append(f"output {name} differs from its reference by {distance:.3g} times what {precision} may")
        if agrees < tolerance.top1:
            problems.append(f"output {name} agrees with its reference in {agrees:.0%} of {cases} cases")
    reason = f"golden: {'; '.join(problems)}" if problems else ""
    return GoldenReport(not problems, cases, worst, agreement, reason)


def agreeing_cases(report: GoldenReport) -> int:
    """Number of cases with the reference's decision."""
    return round(report.top1_agreement * report.cases)


def _compare(role: str, got: Array, expected: Array, tolerance: Tolerance) -> tuple[float, float]:
    """Largest difference as a multiple of what is allowed, and the share of cases with the same decision."""
    if not got.size:  # of nothing, everything would be right
        return np.inf, 0.0
    if role == "label" or got.dtype.kind not in "fiu":
        return 0.0, float(np.mean(got.reshape(len(got), -1) == expected.reshape(len(got), -1)))
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(got).all():
        return np.inf, 0.0
    scale = 1.0 if role == "probabilities" else max(1.0, float(np.ptp(expected)))
    allowed = tolerance.absolute * scale + tolerance.relative * np.abs(expected)
    distance = float((np.abs(got - expected) / allowed).max(initial=0.0))
    if role not in ("probabilities", "logits") or got.ndim < 2:
        return distance, 1.0
    return distance, float(np.mean(got.argmax(axis=-1) == expected.argmax(axis=-1)))
