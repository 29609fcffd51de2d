"""Running an audited package's golden cases on this machine as a device would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.package import Package
from edgeloop.runtime import (
    InferenceError,
    ModelLoadError,
    ModelSession,
    ProviderError,
    available_providers,
    check_golden,
)
from model_export.errors import GoldenMismatchError
from model_export.reading.audited import open_audited

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Check:
    """One variant's golden cases.

    Attributes:
        ok: whether they match; None where this machine has no provider for the variant.
    """

    variant: str
    ok: bool | None
    cases: int
    worst_difference: float | None
    top1_agreement: float | None
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_package` found."""

    digest: str
    name: str
    version: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether a variant ran here, and none that ran differed."""
        return any(check.ok for check in self.checks) and not any(check.ok is False for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"ok": self.ok, **asdict(self)}


def verify_package(
    root: Path, *, deadline_s: float = 30.0, on_step: Callable[[str], None] = lambda text: None
) -> VerifyReport:
    """Audit a package and run its golden cases.

    Args:
        root: the package's folder.
        deadline_s: for one variant.
        on_step: told what begins.

    Raises:
        InvalidPackageError: it failed the audit.
    """
    on_step("auditing")
    package = open_audited(root)
    return VerifyReport(package.digest, package.name, package.version, check_variants(package, deadline_s, on_step))


def check_variants(package: Package, deadline_s: float, on_step: Callable[[str], None]) -> tuple[Check, ...]:
    """The golden cases of every variant that this machine has a provider for."""
    here = available_providers()
    checks = []
    for name, spec in package.variants.items():
        if spec.ep not in here:
            checks.append(Check(name, None, 0, None, None, f"no {spec.ep} on this machine"))
            continue
        on_step(f"golden cases of {name}")
        checks.append(_check(package, name, spec.ep, deadline_s))
    return tuple(checks)


def _check(package: Package, variant: str, provider: str, deadline_s: float) -> Check:
    try:
        session = ModelSession.load(package, variant, provider)
    except (ModelLoadError, ProviderError) as error:
        return Check(variant, False, 0, None, None, str(error))
    try:
        found = check_golden(session, package, deadline_s)
    except InferenceError as error:
        return Check(variant, False, 0, None, None, str(error))
    finally:
        session.close()
    return Check(variant, found.ok, found.cases, found.worst_difference, found.top1_agreement, found.reason)


def table_of(report: VerifyReport) -> Table:
    """What was found, for people."""
    from rich.table import Table

    table = Table("variant", "golden cases", "worst difference", "result")
    for check in report.checks:
        worst = "" if check.worst_difference is None else f"{check.worst_difference:.2e}"
        table.add_row(check.variant, str(check.cases), worst, "ok" if check.ok else check.reason)
    return table


def require(report: VerifyReport) -> None:
    """Nothing, or the reason why a report is not good.

    Raises:
        GoldenMismatchError: a variant differs, or none runs here.
    """
    if report.ok:
        return
    bad = [f"{check.variant}: {check.reason}" for check in report.checks if check.ok is False]
    if bad:
        raise GoldenMismatchError(
            f"golden cases differ on this machine: {'; '.join(bad)}", "build the package again; do not publish this one"
        )
    raise GoldenMismatchError("no variant of the package runs on this machine", "verify it where its provider is")
