"""From a source and data to a graph that can be packaged: canonical, its outputs understood, its head exposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from edgeloop.package import PackageError
from edgeloop.package.manifest import check_text
from model_export.caching.cache import Cache
from model_export.caching.keeping import kept_model
from model_export.data import InputSpec, Table, bind, class_indices, spread
from model_export.errors import DataError
from model_export.graphs import head as heads
from model_export.graphs import roles as output_roles
from model_export.graphs.canonical import COMPARED_ROWS, canonical, inputs_of
from model_export.graphs.graph import Array
from model_export.graphs.head import Head
from model_export.graphs.measure import check_finite, softmax
from model_export.graphs.probe import Probe
from model_export.sources import Source

#: With fewer rows a profile's equal-mass bins and an accuracy mean nothing.
FEWEST_ROWS = 40
#: With fewer, an accuracy is known to a few percent only.
ENOUGH_ROWS = 200
#: Rows from which the roles of outputs are read.
ROLE_ROWS = 512


@dataclass(frozen=True)
class Prepared:
    """A graph with what is known about it.

    Attributes:
        model: the float variant, head exposed.
        inputs: what callers give.
        roles: of every output, by name.
        scores: the output that decides the class: probabilities or logits.
        head: where the head is; None where there is none.
        class_names: the K names, in the order of the scores' columns.
        rows: the data, [N, …] by input.
        truth: true classes int64 [N].
        notes: what the person should know.
    """

    model: ModelProto
    inputs: tuple[InputSpec, ...]
    roles: Mapping[str, str]
    scores: str
    head: Head | None
    class_names: tuple[str, ...]
    rows: Mapping[str, Array]
    truth: npt.NDArray[np.int64]
    notes: tuple[str, ...]

    def probabilities(self, outputs: Mapping[str, Array]) -> npt.NDArray[np.float64]:
        """Probabilities [N, K] from the outputs of any variant."""
        scores = outputs[self.scores]
        return scores.astype(np.float64) if self.roles[self.scores] == "probabilities" else softmax(scores)

    def part(self, rows: Array) -> tuple[dict[str, Array], npt.NDArray[np.int64]]:
        """Inputs and true classes of some rows."""
        return {name: array[rows] for name, array in self.rows.items()}, self.truth[rows]


def require_rows(table: Table) -> None:
    """Nothing, where there are enough rows; raises `DataError`."""
    if table.rows < FEWEST_ROWS:
        raise DataError(
            f"{table.file} has {table.rows} rows; at least {FEWEST_ROWS} are needed",
            "they calibrate int8, measure accuracy and say what normal looks like; several hundred are better",
        )


def prepare(
    source: Source,
    table: Table,
    *,
    labels: Sequence[str] | None,
    given: Mapping[str, str],
    cache: Cache | None = None,
) -> Prepared:
    """Make a source ready to be packaged.

    Args:
        source: the model.
        table: labelled examples.
        labels: names of the classes; None: the source's own, else their indices.
        given: roles of outputs that the person set; those that are unused are left out before anything else.
        cache: of canonical graphs that were made before; None: nothing is kept.

    Raises:
        UnsupportedModelError: the model is no classifier that edgeloop can watch.
        DataError: the data do not fit it.
    """
    read = output_roles.without_unused(source.model, given)
    given = {name: role for name, role in given.items() if role != output_roles.UNUSED}
    specs = inputs_of(read)
    rows = bind(table, specs)
    few, some = spread(rows, COMPARED_ROWS), spread(rows, ROLE_ROWS)
    parts = {"model": read, "rows": few}
    model = kept_model(cache or Cache(None), "canonical", parts, lambda: canonical(read, few))
    outputs = Probe(model).run(some)
    check_finite(outputs)
    roles = output_roles.assign(outputs, given)
    scores = next(name for name, role in roles.items() if role in ("probabilities", "logits"))
    count = outputs[scores].shape[1]
    classes = source.classes or output_roles.declared_classes(source.model, count)
    names = _class_names(labels, classes, count)
    notes = [*source.notes, *_told_unused(source.model, read), *_doubts(table, scores, roles[scores], outputs[scores])]
    notes += _settle_outputs(model, roles, outputs, scores)
    found = heads.expose(model, scores)
    if isinstance(found, Head):
        roles[found.features] = "features"
    else:
        notes.append(f"no head: {found}. The hub cannot retrain this model by its head trainer")
    return Prepared(
        model=model,
        inputs=specs,
        roles=_ordered(model, roles),
        scores=scores,
        head=found if isinstance(found, Head) else None,
        class_names=names,
        rows=rows,
        truth=class_indices(table, names, classes),
        notes=tuple(notes),
    )


def _doubts(table: Table, scores: str, role: str, values: Array) -> list[str]:
    notes = []
    if table.rows < ENOUGH_ROWS:
        notes.append(f"{table.file} has only {table.rows} rows: its accuracy and its profile are rough")
    if role == "logits" and output_roles.are_shares(values):
        notes.append(
            f"output {scores} is between 0 and 1 and its rows do not sum to 1, as of a sigmoid for each class: it is "
            "taken for logits, so the model seems unsure; export a softmax, or what goes into the sigmoids"
        )
    return notes


def _class_names(labels: Sequence[str] | None, classes: tuple[Any, ...] | None, count: int) -> tuple[str, ...]:
    names = tuple(labels) if labels is not None else tuple(str(c) for c in (classes or range(count)))
    if len(names) != count:
        raise DataError(f"{len(names)} labels for a model of {count} classes", "give --labels one name for each class")
    if len(set(names)) != count or not all(names):
        raise DataError("labels are not all different", "give --labels one name for each class")
    try:
        return tuple(check_text(name) for name in names)
    except PackageError as error:
        raise DataError(
            f"a label cannot be shown: {error}", "give --labels one readable name for each class"
        ) from error


def _told_unused(source: ModelProto, read: ModelProto) -> list[str]:
    left = {output.name for output in read.graph.output}
    gone = [output.name for output in source.graph.output if output.name not in left]
    before, after = len(source.graph.node), len(read.graph.node)
    told = f"left out, since nobody reads it: output {', '.join(gone)}, and {before - after} of {before} operators"
    return [told] if gone else []


def _settle_outputs(model: ModelProto, roles: dict[str, str], outputs: Mapping[str, Array], scores: str) -> list[str]:
    """Make the label an index, drop outputs that devices could not send on, and say so."""
    notes = []
    for name in [name for name, role in roles.items() if role == "label"]:
        output_roles.index_label(model, name, scores)
    texts = {name: array for name, array in outputs.items() if roles[name] == "other"}
    for name in output_roles.keep_rows_only(model, texts):
        del roles[name]
        notes.append(f"output {name} is left out: it is text")
    for name in [name for name, role in roles.items() if role == "other"]:
        what = " is no index of the best class; it" if outputs[name].dtype.kind in "iu" else ""
        notes.append(f"output {name}{what} is passed on to callers; --role {name}=unused spares what it costs")
    return notes


def _ordered(model: ModelProto, roles: Mapping[str, str]) -> dict[str, str]:
    return {output.name: roles.get(output.name, "other") for output in model.graph.output}
