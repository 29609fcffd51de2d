"""``model-export diff``. It only translates: options, result and errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from model_export.commands.console import Json, out, print_json, progress, reporting, say, size

if TYPE_CHECKING:
    from model_export.diff import Difference
    from model_export.diff.graphs import GraphChange

#: Names in one line.
MOST_NAMED = 8


def diff(
    old: Annotated[Path, typer.Argument(help="Folder of the package that devices have.")],
    new: Annotated[Path, typer.Argument(help="Folder of the package that they would get.")],
    no_run: Annotated[bool, typer.Option("--no-run", help="Run nothing of them: no outputs.")] = False,
    as_json: Json = False,
) -> None:
    """Say what is different between two packages, and what the update would cost a device."""
    with reporting(as_json):
        from model_export.diff import compare

        with progress() as step:
            found = compare(old, new, run=not no_run, on_step=step)
        if as_json:
            print_json(found.as_dict())
            return
        _show(found)


def _show(found: Difference) -> None:
    say(f"{_named(found.old)} → {_named(found.new)}{': the same release' if found.same else ''}")
    for what, names in (("new", found.variants_added), ("gone", found.variants_removed)):
        if names:
            say(f"variants that are {what}: {', '.join(names)}")
    if found.labels is not None:
        say(f"labels: {_list(found.labels[0])} → {_list(found.labels[1])}")
    for name, change in found.graphs.items():
        _show_graph(name, change)
    for name, outputs in found.outputs.items():
        before, after = outputs.accuracy
        say(
            f"{name}, {outputs.rows} validation rows: {outputs.agreement:.2%} decided alike, probabilities differ by "
            f"{outputs.difference:.3g} at most, accuracy {before:.4f} → {after:.4f}"
        )
    if found.not_run:
        say(f"outputs were not compared: {found.not_run}")
    for title, changes in (("metrics", found.metrics), ("recipe", found.recipe)):
        for name, (was, now) in changes.items():
            say(f"{title} {name}: {_value(was)} → {_value(now)}")
    table = Table("a device that runs", "fetches", "of", "files")
    for name, update in {"any variant": found.update, **found.updates}.items():
        table.add_row(name, size(update.bytes), size(update.of_bytes), f"{update.files} of {update.of_files}")
    out.print(table)


def _show_graph(name: str, change: GraphChange) -> None:
    if change.is_empty:
        say(f"{name}: the same graph, the same tensors")
        return
    if change.operators:
        counts = ", ".join(f"{operator} {count:+d}" for operator, count in change.operators.items())
        say(f"{name}: operators {counts}")
    for what, names in (
        ("nodes added", change.added),
        ("nodes removed", change.removed),
        ("nodes changed", change.changed),
        ("tensors added", change.tensors_added),
        ("tensors removed", change.tensors_removed),
    ):
        if names:
            say(f"{name}: {len(names)} {what}: {_list(names)}")
    for domain, (was, now) in change.opsets.items():
        say(f"{name}: opset of {domain} {_value(was)} → {_value(now)}")
    if change.tensors_changed:
        told = [
            f"{tensor.name} by {tensor.change:.2%}" if tensor.change is not None else tensor.name
            for tensor in sorted(change.tensors_changed, key=lambda tensor: -(tensor.change or 0.0))
        ]
        say(f"{name}: {len(told)} tensors changed, {change.tensors_same} the same: {_list(told)}")


def _named(package: dict[str, str]) -> str:
    return f"{package['name']} {package['version']} ({package['digest'][:19]}…)"


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _value(value: Any) -> str:
    return "–" if value is None else str(value)
