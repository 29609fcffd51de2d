"""What the commands share: where results and errors go, and how an error becomes an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_export.commands.steps import Steps
from model_export.errors import ExportError, RequestError
from model_export.telling import err, out, print_json, tell_error

if TYPE_CHECKING:
    from model_export.hub import Hub

__all__ = [
    "HubCaCert",
    "HubToken",
    "Json",
    "err",
    "hub_at",
    "out",
    "print_json",
    "progress",
    "reporting",
    "say",
    "size",
]

Json = Annotated[bool, typer.Option("--json", help="Print the result, or the error, as one JSON object on stdout.")]
HubToken = Annotated[
    str, typer.Option("--token", envvar="MODEL_EXPORT_TOKEN", help="API token of the hub.", show_envvar=True)
]
HubCaCert = Annotated[
    str,
    typer.Option(
        "--ca-cert", envvar="MODEL_EXPORT_CA_CERT", help="Certificate (PEM) of the hub's own CA; else the system's CAs."
    ),
]


def hub_at(address: str, token: str, ca_cert: str) -> Hub:
    """The hub of a command's options.

    Raises:
        RequestError: no address is given, the CA's file cannot be read, or a token would cross a network in clear text.
    """
    from model_export.hub import Hub

    if not address:
        raise RequestError("the hub is not said", "--hub https://host:port")
    return Hub(address, token=token, ca_cert=Path(ca_cert) if ca_cert else None)


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Errors become a message, a hint and an exit code."""
    try:
        yield
    except ExportError as error:
        raise typer.Exit(tell_error(error, as_json)) from error


@contextmanager
def progress(weights: Mapping[str, float] | None = None) -> Iterator[Callable[[str], None]]:
    """Steps as they begin: a bar with the time left on a terminal, plain lines elsewhere, on stderr always.

    Args:
        weights: of the steps, see `model_export.commands.steps`; None: they are not known, so there is no bar.
    """
    if not err.is_terminal:
        yield lambda text: err.print(f"{text} …", highlight=False, markup=False, soft_wrap=True)
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    steps = Steps(weights or {})
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    if weights:
        columns += [BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[left]}")]
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as bar:
        task = bar.add_task(steps.text, total=1.0, left="")

        def step(text: str) -> None:
            steps.begin(text)
            left = "" if steps.left_s is None else f"about {_duration(steps.left_s)} left"
            bar.update(task, description=text, completed=steps.done, left=left)

        yield step


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def say(text: str) -> None:
    """A line of a result."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def size(count: int) -> str:
    """Bytes as a person reads them."""
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
