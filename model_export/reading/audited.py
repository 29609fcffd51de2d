"""Opening a package that somebody has handed over: audited first. It needs no runtime; neither does publishing."""

from __future__ import annotations

from pathlib import Path

from edgeloop.package import Package, PackageError, audit_in_child
from model_export.errors import InvalidPackageError

#: Seconds for the audit, which reads every file.
AUDIT_TIMEOUT_S = 60.0


def open_audited(root: Path) -> Package:
    """Open a package that has passed its audit.

    Raises:
        InvalidPackageError: it has not; the message lists every problem.
    """
    if not root.is_dir():
        raise InvalidPackageError(f"there is no package {root}", "give the folder that model-export build wrote")
    try:
        audit_in_child(root, timeout_s=AUDIT_TIMEOUT_S)
        return Package.open(root)
    except PackageError as error:
        problems = "; ".join(error.problems) or str(error)
        raise InvalidPackageError(
            f"{root} failed its audit: {problems}", "do not repair it by hand; build or fetch it again"
        ) from error
