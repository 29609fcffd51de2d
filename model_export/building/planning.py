"""What a build would do, without doing it: for ``--dry-run``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model_export.building import finished
from model_export.building.build import build
from model_export.building.converting import kept
from model_export.building.inputs import read
from model_export.building.request import Request
from model_export.caching.cache import Cache
from model_export.data import Table
from model_export.sources import is_factory

#: Suffix of a file → libraries that reading it needs, and how to get them.
_NEEDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    ".joblib": (("sklearn", "skl2onnx", "joblib"), "pip install 'edgeloop[export]'"),
    ".csv": (("pyarrow",), "pip install 'edgeloop[export]'"),
    ".parquet": (("pyarrow",), "pip install 'edgeloop[export]'"),
}


@dataclass(frozen=True)
class Plan:
    """What would be built.

    Attributes:
        source: what it is, in words.
        data: file, rows, columns with their shapes, classes.
        variants: that would be made.
        calibration, validation: rows of each, about: the data are split by class when the model is known.
        steps: step → ``cached``, ``to do``, or ``known when the source is open``.
        missing: libraries that are needed and not there, each with what to do.
    """

    source: str
    destination: str
    data: dict[str, Any]
    variants: tuple[str, ...]
    calibration: int
    validation: int
    steps: dict[str, str]
    missing: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def plan(source: object, destination: str | Path, data: str | Path, **options: Any) -> Plan:
    """Say what `build` would do with the same arguments; converts nothing, runs nothing of the source.

    Raises:
        ExportError: what a build would refuse before it opens the source.
    """
    bound = inspect.signature(build).bind(source, destination, data, **options)
    bound.apply_defaults()
    cache = bound.arguments["cache"] or Cache(None)
    request = Request.of(bound.arguments)
    inputs = read(request)
    found = kept(source, cache, inputs.opening())
    key = None if found is None else inputs.key(found)
    there = key is not None and cache.read(finished.STEP, key) is not None
    steps = {
        "opening the source": "to do" if found is None else "cached",
        "the package": "known when the source is open" if found is None else "cached" if there else "to do",
    }
    calibration = round(inputs.file.rows * inputs.recipe.calibration_share)
    names = tuple(made.name for made in inputs.recipe.rules(by_clock=False).recipes)
    return Plan(
        source=_told(source, trusted=request.trust_source),
        destination=str(request.destination),
        data=_data(inputs.file),
        variants=("those that a search chooses",) if request.tune else names,
        calibration=calibration,
        validation=inputs.file.rows - calibration,
        steps=steps,
        missing=tuple(_missing(source, request.data)),
    )


def _told(source: object, *, trusted: bool) -> str:
    if not isinstance(source, str | Path):
        return f"an object: {type(source).__module__}.{type(source).__name__}"
    path = Path(source)
    if path.is_dir():
        return f"the folder {path.name}"
    if path.suffix.lower() in (".joblib", ".pkl", ".pickle"):
        return f"the pickle {path.name}, {'whose code would run' if trusted else 'which needs --trust-source'}"
    if path.is_file():
        return f"the file {path.name}"
    if is_factory(str(source)):
        return f"{source}, which would be imported and called"
    return f"{source}, which is not there"


def _missing(source: object, data: Path) -> list[str]:
    """Libraries that are needed by what can be seen from outside; a factory's own imports cannot."""
    suffixes = [Path(place).suffix.lower() for place in (source, data) if isinstance(place, str | Path)]
    found = {
        f"{library}: {advice}"
        for suffix in suffixes
        for libraries, advice in (_NEEDS.get(".joblib" if suffix in (".pkl", ".pickle") else suffix, ((), "")),)
        for library in libraries
        if find_spec(library) is None
    }
    return sorted(found)


def _data(table: Table) -> dict[str, Any]:
    values = sorted({str(value) for value in table.labels.tolist()})
    return {
        "file": table.file,
        "rows": table.rows,
        "columns": {name: f"{array.dtype} {list(array.shape[1:])}" for name, array in table.columns.items()},
        "classes": values[:20] if len(values) <= 20 else [*values[:20], f"and {len(values) - 20} more"],
    }
