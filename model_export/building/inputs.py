"""What a request names, read: the data, the package that the new one shall be like, and what comes before the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from edgeloop.package import Package
from model_export import processing
from model_export.building import finished
from model_export.building.request import Request
from model_export.caching.content_keys import plain
from model_export.data import Table, read_table
from model_export.errors import RequestError
from model_export.graphs.graph import Array
from model_export.graphs.opsets import Limits, limits_of
from model_export.prepare import require_rows
from model_export.processing import Processing
from model_export.reading.audited import open_audited
from model_export.sources import Source
from model_export.variants.likeness import KEY, Recipe


@dataclass(frozen=True)
class Inputs:
    """What a build works on.

    Attributes:
        request: what was asked for.
        file: the data, as they are in their file.
        declared: what comes before and after the model.
        recipe: what decides about the variants: the request's own, or that of ``base``.
        base: the package that the new one shall be like, or None.
    """

    request: Request
    file: Table
    declared: Processing
    recipe: Recipe
    base: Package | None = None

    @property
    def name(self) -> str | None:
        """Of the package; None: the source's."""
        return self.request.name if self.base is None else self.base.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Of the classes; None: the source's."""
        if self.base is not None:
            return self.base.meta.labels
        return None if self.request.labels is None else tuple(self.request.labels)

    @cached_property
    def limits(self) -> Limits | None:
        """What the oldest runtime that was named can read.

        Raises:
            RequestError: there is no such runtime.
        """
        return None if self.recipe.min_runtime is None else limits_of(self.recipe.min_runtime)

    @cached_property
    def _rows(self) -> tuple[dict[str, Array], Table]:
        return processing.applied(self.declared, self.file)

    @property
    def raw(self) -> Mapping[str, Array]:
        """What callers of the package would give for each row; nothing where they give what the model takes.

        Raises:
            DataError: the data cannot be processed as declared.
        """
        return self._rows[0]

    @property
    def table(self) -> Table:
        """The data as the model itself takes them.

        Raises:
            DataError: they cannot be processed as declared.
        """
        return self._rows[1]

    def opening(self) -> dict[str, Any]:
        """What decides how the source is opened, besides the source: an exporter traces it with rows of the data."""
        return {
            "data": self.file.sha256,
            "processing": plain(self.declared),
            "label_column": self.request.label_column,
            "trust_source": self.request.trust_source,
            "min_runtime": self.recipe.min_runtime,
        }

    def key(self, source: Source) -> str | None:
        """The key of the package that these inputs give; None where nobody can hash them."""
        like = self.request.like if self.base is None else self.base.digest
        decided = {**self.request.deciding(), "like": like, "processing": self.declared}
        return finished.key_for(decided, source, self.file)

    def asked(self, package: Package) -> dict[str, Any]:
        """The options of a build as its provenance tells them, as JSON values."""
        return {
            "labels": None if self.labels is None else list(self.labels),
            "label_column": self.request.label_column,
            "name": self.name,
            "version": self.request.version,
            "trust_source": self.request.trust_source,
            "like": None if self.base is None else self.base.digest,
            **package.meta.extra[KEY],
            "int8": self.recipe.int8.describe(),
        }


def read(request: Request, on_step: Callable[[str], None] = lambda text: None) -> Inputs:
    """Read what a request names; opens no source.

    Raises:
        ExportError: something cannot be read, or does not fit the rest.
    """
    recipe, base = request.recipe(), None
    if request.like is not None:
        on_step("reading the package that it shall be like")
        base = open_audited(request.like)
        # Without a measured latency the same data give the same package, whenever and wherever it is built.
        recipe = replace(Recipe.of(base), reproducible=True)
    on_step("reading data")
    file = read_table(request.data, request.label_column)
    require_rows(file)  # before anything is converted
    declared = processing.declared(request.source, request.processing, file, base)
    if request.fit_temperature and base is None:
        declared = _with_fit(declared)
    return Inputs(request, file, declared, replace(recipe, processing=declared.to_json()), base)


def _with_fit(declared: Processing) -> Processing:
    try:
        return replace(declared, output=replace(declared.output, fit_temperature=True))
    except ValueError as error:
        raise RequestError(
            f"--fit-temperature contradicts {declared.origin}: {error}", "leave one of the two out"
        ) from error
