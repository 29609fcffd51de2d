"""``model-export sensitivity``. It only translates: options, result and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from model_export.commands.console import Json, out, print_json, progress, reporting, say


def sensitivity(
    package: Annotated[Path, typer.Argument(help="The package's folder.")],
    nodes: Annotated[int, typer.Option(min=1, help="Most layers that are left in float for a try.")] = 8,
    as_json: Json = False,
) -> None:
    """Say which layers make int8 less accurate than fp32, on the package's validation set."""
    with reporting(as_json):
        from model_export.tuning.blaming import blame

        with progress() as step:
            found = blame(package, nodes=nodes, on_step=step)
        if as_json:
            print_json(found.as_dict())
            return
        table = Table("layer", "operator", "error of its output", "accuracy without it in int8")
        for node in found.nodes:
            mended = "" if node.accuracy_without is None else f"{node.accuracy_without:.4f}"
            table.add_row(node.node, node.op, f"{node.error:.2%}", mended)
        out.print(table)
        say(found.told())
