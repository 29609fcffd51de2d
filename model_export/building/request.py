"""What a person asks of a build, and what can be refused before work begins."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgeloop.insights.forms import Kind
from model_export.appearing import require_free
from model_export.errors import RequestError
from model_export.graphs.roles import ROLES
from model_export.trust.provenance import Licences
from model_export.tuning.options import TuneOptions
from model_export.variants.likeness import Recipe
from model_export.variants.recipes import Int8Options, one_of
from model_export.variants.targets import PRECISIONS, target_of

#: Options that do not change the package, or whose content is a part of its key already.
_BESIDES = ("source", "destination", "data", "trust_source", "licences")
#: What a person may give as a text from Python.
_PATHS = ("destination", "data", "processing", "like")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `model_export.build`, which says what each is."""

    source: object
    destination: Path
    data: Path
    labels: Sequence[str] | None
    label_column: str | None
    precision: Sequence[str] | None
    targets: Sequence[str]
    name: str | None
    version: str
    trust_source: bool
    roles: Mapping[str, str] | None
    calibration_share: float
    int8: Int8Options | None
    max_loss: float
    validation_rows: int
    reproducible: bool
    input_kind: Kind | None
    processing: Path | None
    fit_temperature: bool
    min_runtime: str | None
    licences: Licences | None
    like: Path | None
    lineage: Mapping[str, Any] | None
    tune: TuneOptions | None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Request:
        """A request that can be followed, from the arguments of `model_export.build` by name.

        Raises:
            DestinationError: there is something, or there is no folder to put it into.
            RequestError: an option has a value that is not known.
        """
        given = {field.name: arguments[field.name] for field in fields(cls)}
        request = cls(**given | {name: Path(given[name]) for name in _PATHS if given[name] is not None})
        require_free(request.destination)
        request._check_lists()
        request._check_numbers()
        for what, text in (("name", request.name), ("version", request.version)):
            if text is not None and not _NAME.fullmatch(text):
                raise RequestError(f"{what} {text!r} is not usable", "use letters, digits and . _ + -, 64 at most")
        return request

    def _check_lists(self) -> None:
        for what in ("labels", "precision", "targets"):
            if isinstance(getattr(self, what), str):
                raise RequestError(f"{what} is one text, and has to be a list of them", f"{what}=[…]")
        unknown = [p for p in self.precision or () if p not in PRECISIONS]
        if unknown or (self.precision is not None and not self.precision):
            raise RequestError(
                f"precision {', '.join(unknown) or '(none)'} is not known", f"use {', '.join(PRECISIONS)}"
            )
        if not self.targets:
            raise RequestError("no target is named", "leave --target out for cpu")
        for target in self.targets:
            target_of(target)
        for output, role in (self.roles or {}).items():
            if role not in ROLES:
                raise RequestError(f"{role!r} of the output {output} is no role", f"use {', '.join(ROLES)}")

    def _check_numbers(self) -> None:
        if not 0 < self.calibration_share < 1:
            raise RequestError(
                f"a calibration share of {self.calibration_share:g} leaves no rows for one purpose", "from 0.05 to 0.9"
            )
        if not 0 <= self.max_loss <= 1:
            raise RequestError(f"a loss of {self.max_loss:g} of accuracy is none", "from 0 to 1")
        if self.validation_rows < 1:
            raise RequestError(f"{self.validation_rows} validation rows measure nothing", "1 or more")

    def recipe(self) -> Recipe:
        """What the package's metadata tell of the request, so that a later build can follow it again."""
        return Recipe(
            precision=None if self.precision is None else tuple(map(one_of(PRECISIONS), self.precision)),
            targets=tuple(self.targets),
            int8=self.int8 or Int8Options(),
            max_loss=self.max_loss if self.tune is None else self.tune.accuracy_drop,
            calibration_share=self.calibration_share,
            validation_rows=self.validation_rows,
            roles=self.roles or {},
            input_kind=self.input_kind,
            reproducible=self.reproducible,
            min_runtime=self.min_runtime,
        )

    def deciding(self) -> dict[str, Any]:
        """Every option that can change the package, but for the content of what it is made of."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _BESIDES}


def safe_name(text: str) -> str:
    """A name that a package can have, like ``text``."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", text).lstrip("-._+")[:64] or "model"
