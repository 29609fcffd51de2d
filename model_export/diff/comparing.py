"""From OLD to NEW: graphs, tensors, decisions, metrics, recipe, and the bytes of the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.package import Package, PackageError
from edgeloop.runtime import InferenceError
from model_export.diff.graphs import GraphChange, compared
from model_export.diff.update import Update, update
from model_export.errors import InvalidPackageError
from model_export.notebook import table_of
from model_export.reading.audited import open_audited
from model_export.reading.loading import graph_of, probabilities, sessions_of
from model_export.variants.likeness import KEY


@dataclass(frozen=True)
class Outputs:
    """Of one variant that both packages have, on the validation set of the new one.

    Attributes:
        rows: of the set.
        agreement: share of equal decisions.
        difference: largest difference of a probability.
        accuracy: before and after.
    """

    rows: int
    agreement: float
    difference: float
    accuracy: tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """What is different.

    Attributes:
        old, new: name, version and digest of each.
        same: whether they are the same release.
        variants_added, variants_removed: names.
        graphs: of each variant that both have.
        outputs: likewise, where they could be run.
        not_run: why outputs were not compared; "" where they were.
        metrics: ``variant.metric`` → before and after, where they differ.
        recipe: field → before and after.
        labels: before and after, where they differ; else None.
        update: what a device fetches that may run every variant.
        updates: what one fetches that runs this variant alone.
    """

    old: dict[str, str]
    new: dict[str, str]
    same: bool
    variants_added: tuple[str, ...]
    variants_removed: tuple[str, ...]
    graphs: dict[str, GraphChange]
    outputs: dict[str, Outputs]
    not_run: str
    metrics: dict[str, tuple[Any, Any]]
    recipe: dict[str, tuple[Any, Any]]
    labels: tuple[tuple[str, ...], tuple[str, ...]] | None
    update: Update
    updates: dict[str, Update] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """A table of the updates, for Jupyter."""
        rows = [
            (name, f"{one.files} of {one.of_files}", f"{one.bytes:,} of {one.of_bytes:,}")
            for name, one in {"all variants": self.update, **self.updates}.items()
        ]
        title = f"{self.old['name']} {self.old['version']} → {self.new['name']} {self.new['version']}"
        return table_of(title, ("a device with", "files", "bytes"), rows)


def compare(
    old: Path, new: Path, *, run: bool = True, on_step: Callable[[str], None] = lambda text: None
) -> Difference:
    """Audit two packages and compare them.

    Args:
        old: folder of the one that devices have.
        new: folder of the one that they would get.
        run: whether to run both on the validation set of the new one.
        on_step: told what begins.

    Raises:
        InvalidPackageError: one failed its audit.
    """
    on_step("auditing both")
    before, after = open_audited(Path(old)), open_audited(Path(new))
    both = [name for name in after.variants if name in before.variants]
    graphs = {}
    for name in both:
        on_step(f"graphs of {name}")
        graphs[name] = compared(graph_of(before, name), graph_of(after, name))
    outputs, reason = _outputs(before, after, both, on_step) if run else ({}, "nothing was to be run")
    labels = before.meta.labels, after.meta.labels
    return Difference(
        old=_identity(before),
        new=_identity(after),
        same=before.digest == after.digest,
        variants_added=tuple(name for name in after.variants if name not in before.variants),
        variants_removed=tuple(name for name in before.variants if name not in after.variants),
        graphs=graphs,
        outputs=outputs,
        not_run=reason,
        metrics=_changed(before.meta.metrics, after.meta.metrics),
        recipe=_changed(before.meta.extra.get(KEY, {}), after.meta.extra.get(KEY, {})),
        labels=None if labels[0] == labels[1] else labels,
        update=update(before, after),
        updates={name: update(before, after, [name]) for name in after.variants},
    )


def _identity(package: Package) -> dict[str, str]:
    return {"name": package.name, "version": package.version, "digest": package.digest}


def _outputs(
    old: Package, new: Package, variants: list[str], on_step: Callable[[str], None]
) -> tuple[dict[str, Outputs], str]:
    """Outputs of the variants that both have and that run here, and why there are none."""
    if [(t.name, t.datatype) for t in old.meta.inputs] != [(t.name, t.datatype) for t in new.meta.inputs]:
        return {}, "they take other inputs"
    if old.meta.labels != new.meta.labels:
        return {}, "they name other classes"
    try:
        validation = new.validation()
    except PackageError as error:
        raise InvalidPackageError(f"the validation set of {new.name} cannot be read: {error}") from error
    if validation is None or not len(validation[1]):
        return {}, f"{new.name} {new.version} carries no validation set"
    inputs, truth = validation
    (ones, _), (twos, reasons) = sessions_of(old, variants), sessions_of(new, variants)
    found = {}
    try:
        for name in [name for name in variants if name in ones and name in twos]:
            on_step(f"{name} of both on {len(truth)} validation rows")
            one, two = probabilities(ones[name], inputs), probabilities(twos[name], inputs)
            if one.shape != two.shape:
                return {}, "they have other numbers of classes"
            said = one.argmax(axis=1), two.argmax(axis=1)
            found[name] = Outputs(
                rows=len(truth),
                agreement=float((said[0] == said[1]).mean()),
                difference=float(np.abs(one - two).max()),
                accuracy=(float((said[0] == truth).mean()), float((said[1] == truth).mean())),
            )
    except InferenceError as error:
        return {}, f"a variant does not run on the validation set: {error}"
    finally:
        for session in (*ones.values(), *twos.values()):
            session.close()
    return found, "" if found else "; ".join(reasons.values()) or "they have no variant in common"


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Values of nested objects that differ, by their path."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= _changed(before, after, f"{prefix}{name}.")
        elif before != after:
            found[f"{prefix}{name}"] = (before, after)
    return found
