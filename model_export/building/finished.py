"""Packages that an earlier build has made of the same input: they are written again, and proven again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeloop.package import Package
from model_export.building.assemble import appear_proven
from model_export.building.build_report import BuildReport
from model_export.building.converting import content_of, pack, unpack
from model_export.caching.cache import Cache
from model_export.caching.content_keys import key_of, plain
from model_export.data import Table
from model_export.sources import Source
from model_export.tuning.tune import path_of as tuning_path

STEP = "package"
_REPORT, _TUNING = "report.json", "tuning.json"


def key_for(request: Mapping[str, Any], source: Source, table: Table) -> str | None:
    """The key of a package.

    Args:
        request: every option of the build that can change it.
        source: as it was opened.
        table: the data.

    Returns:
        None where an option is something whose content nobody can hash: then it is built each time.
    """
    try:
        told = {name: plain(value) for name, value in request.items()}
        return key_of(STEP, request=told, source=content_of(source), data=[table.file, table.sha256])
    except TypeError:
        return None


def restore(
    cache: Cache, key: str | None, destination: Path, on_step: Callable[[str], None]
) -> tuple[Package, BuildReport] | None:
    """Write the package of a key, audited and with its golden cases run, and what was told of it; None: there is none.

    Raises:
        ExportError: it cannot be written there, or is not good on this machine.
    """
    data = None if key is None else cache.read(STEP, key)
    if data is None:
        return None
    on_step("writing and testing the package, which was built before")
    files = unpack(data)
    told, tuning = json.loads(files.pop(_REPORT)), files.pop(_TUNING, None)

    def write(staged: Path) -> None:
        for name, content in files.items():
            path = staged / name.removeprefix("package/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    package = appear_proven(destination, write, on_step)
    if tuning is not None:
        tuning_path(destination).write_bytes(tuning)
    return package, BuildReport.restored(told, destination)


def keep(cache: Cache, key: str | None, report: BuildReport) -> None:
    """Keep a package that was built just now."""
    if key is None or cache.folder is None:
        return
    files = {
        f"package/{path.relative_to(report.path).as_posix()}": path.read_bytes()
        for path in report.path.rglob("*")
        if path.is_file()
    }
    files[_REPORT] = json.dumps(report.as_dict()).encode()
    if tuning_path(report.path).is_file():
        files[_TUNING] = tuning_path(report.path).read_bytes()
    cache.write(STEP, key, pack(files))
