"""``model-export convert``. It only translates: options, result and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from model_export.commands.console import Json, print_json, progress, reporting, say


def convert(
    package: Annotated[Path, typer.Argument(help="The package's folder.")],
    to: Annotated[Literal["mlflow", "huggingface", "onnx"], typer.Option("--to", help="For which tool.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; it must not exist yet.")],
    variant: Annotated[str, typer.Option(help="Which variant; by default fp32 on the CPU.")] = "",
    as_json: Json = False,
) -> None:
    """Write a package's model for another tool: an MLflow model, a Hugging Face folder, or ONNX with its labels."""
    with reporting(as_json):
        from model_export.reading.audited import open_audited
        from model_export.reading.exchange import convert as write

        with progress() as step:
            step("auditing")
            opened = open_audited(package)
            step("writing")
            taken = write(opened, output, to, variant or None)
        if as_json:
            print_json({"path": str(output), "form": to, "variant": taken, "digest": opened.digest})
            return
        say(f"{output}: {taken} of {opened.name} {opened.version} for {to}")
