"""The command ``edge-agent``. It only translates: options, results, errors and exit codes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edge_agent import exit_codes
from edge_agent.settings import Settings, SettingsError, load
from edgeloop import __version__

app = typer.Typer(
    name="edge-agent",
    help="Runs, observes and updates a model on this device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out = Console()

Config = Annotated[Path | None, typer.Option(help="Settings, a TOML file; EDGE_AGENT_* variables are stronger.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def main() -> None:
    """Entry point of the console script."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edge-agent {__version__}")
        raise typer.Exit(exit_codes.OK)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def run(config: Config = None) -> None:
    """Run the agent until it is told to stop (SIGTERM, SIGINT)."""
    settings = _settings(config)
    # onnxruntime takes a while to import: --help and wrong settings do not wait for it.
    from edge_agent.app import AddressError, Agent, DataError
    from edge_agent.logs import configure

    configure(settings.log_level, settings.log_format)
    try:
        Agent(settings).run(announce=lambda line: print(line, flush=True))
    except DataError as error:
        raise _failed(str(error), exit_codes.DATA) from error
    except AddressError as error:
        raise _failed(str(error), exit_codes.ADDRESS) from error


@app.command()
def status(config: Config = None, as_json: Json = False) -> None:
    """Say what the running agent serves, what its update does, and what waits to be sent."""
    from edge_agent.status import NoAgent, ask, table

    try:
        found = ask(_settings(config))
    except NoAgent as error:
        raise _failed(str(error), exit_codes.NO_AGENT) from error
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _out.print(table(found))


@app.command()
def doctor(config: Config = None, as_json: Json = False) -> None:
    """Examine providers, disk, clock, broker and hub: what is wrong, and how to mend it."""
    from edge_agent.doctor import examine

    findings = examine(_settings(config))
    healthy = all(finding.level != "error" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}))
    else:
        colours = {"ok": "green", "warning": "yellow", "error": "red"}
        table = Table("check", "", "found", "how to mend it")
        for finding in findings:
            level = f"[{colours[finding.level]}]{finding.level}[/]"
            table.add_row(finding.check, level, finding.found, finding.mend)
        _out.print(table)
    if not healthy:
        raise typer.Exit(exit_codes.UNHEALTHY)


def _settings(config: Path | None) -> Settings:
    try:
        return load(config)
    except SettingsError as error:
        raise _failed(str(error), exit_codes.SETTINGS) from error


def _failed(message: str, code: int) -> typer.Exit:
    typer.echo(f"edge-agent: {message}", err=True)
    return typer.Exit(code)
