"""What a build tells: for Python, for ``--json``, and for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from model_export.graphs.measure import Metrics
from model_export.notebook import table_of


@dataclass(frozen=True)
class BuildReport:
    """What was built.

    Attributes:
        path: the package's folder.
        digest: of the release that it would be.
        metrics: of each variant, latency exact.
        head: whether the hub's head trainer can retrain it.
        labels: names of the classes.
        notes: what the person should know.
        parity: how the converted model stands to its source, output by output; None where the source is ONNX.
        temperature: what was fitted, with the calibration error before and after; None where none was.
        tuning: what a search has tried and chosen, as in the tuning file; None where there was none.
        cached: the package was found among those of earlier builds, which had the same input.
    """

    path: Path
    name: str
    version: str
    digest: str
    bytes: int
    metrics: Mapping[str, Metrics]
    head: bool
    labels: tuple[str, ...]
    lineage: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parity: Mapping[str, Any] | None = None
    temperature: Mapping[str, Any] | None = None
    tuning: Mapping[str, Any] | None = None
    cached: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "path": str(self.path)}

    @classmethod
    def restored(cls, told: Mapping[str, Any], path: Path) -> BuildReport:
        """What an earlier build of the same package has told, by `as_dict`."""
        known = {spec.name for spec in fields(Metrics)}
        metrics = {
            name: Metrics(**{key: value for key, value in of.items() if key in known})
            for name, of in told["metrics"].items()
        }
        changed = {"path": path, "metrics": metrics, "labels": tuple(told["labels"]), "notes": tuple(told["notes"])}
        return cls(**{**told, **changed, "cached": True})

    def _repr_html_(self) -> str:
        """A table of the variants, for Jupyter."""
        rows = [
            (
                name,
                f"{metrics.accuracy:.4f}",
                f"{metrics.size_bytes / 1e3:,.1f} kB",
                "" if metrics.latency_ms is None else f"{metrics.latency_ms:.3f} ms",
            )
            for name, metrics in self.metrics.items()
        ]
        return table_of(
            f"{self.name} {self.version}",
            ("variant", "accuracy", "size", "latency"),
            rows,
            (f"{self.path}", self.digest, *(f"note: {note}" for note in self.notes)),
        )
