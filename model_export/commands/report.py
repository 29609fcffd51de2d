"""``model-export report``. It only translates: options, result and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.whole_files import write_whole
from model_export.commands.console import Json, print_json, progress, reporting, say
from model_export.errors import DestinationError


def report(
    package: Annotated[Path, typer.Argument(help="The package's folder.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; by default PACKAGE.report.html beside the package.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a package's variants on its validation set, and show it on one page (or as JSON)."""
    with reporting(as_json):
        from model_export.report import render
        from model_export.report import report as measure

        with progress() as step:
            found = measure(package, on_step=step)
        if as_json and output is None:
            print_json(found.as_dict())
            return
        place = output or package.with_name(f"{package.name}.report.html")
        try:
            write_whole(place, render(found).encode(), mode=0o644)
        except OSError as error:
            raise DestinationError(
                f"{place} cannot be written: {error.strerror or error}", "choose another place with -o"
            ) from error
        if as_json:
            print_json(found.as_dict())
            return
        for words in found.observations:
            say(f"- {words}")
        say(str(place))
