"""What a package holds, in plain values."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model_export.notebook import table_of
from model_export.reading.audited import open_audited


class Contents(dict[str, Any]):
    """A package's contents, as JSON values; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        rows = [
            (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            for name, value in self.items()
        ]
        return table_of(f"{self['name']} {self['version']}", ("", ""), rows)


def describe(root: Path) -> Contents:
    """A package's contents for people and for ``--json``; runs nothing of it.

    Raises:
        InvalidPackageError: the package failed its audit.
    """
    package = open_audited(root)
    meta = package.meta
    contents = {
        "name": package.name,
        "version": package.version,
        "digest": package.digest,
        "task": meta.task,
        "labels": list(meta.labels),
        "inputs": [asdict(spec) for spec in meta.inputs],
        "outputs": [asdict(spec) for spec in meta.outputs],
        "features": meta.features,
        "head": None if meta.head is None else asdict(meta.head),
        "variants": {
            name: {
                "provider": spec.ep,
                "device": spec.device,
                "precision": spec.precision,
                **meta.metrics.get(name, {}),
            }
            for name, spec in package.variants.items()
        },
        "lineage": dict(meta.lineage),
        "files": len(package.index.entries),
        "bytes": sum(entry.size for entry in package.index.entries),
    }
    return Contents(contents)
