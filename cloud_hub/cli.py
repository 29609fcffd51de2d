"""The command ``cloud-hub``."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

import edgeloop
from cloud_hub import (
    access_commands,
    cost_commands,
    exit_codes,
    identity_commands,
    lineage_commands,
    retraining_commands,
    samples_commands,
    threshold_commands,
    trust_commands,
)

#: New containers between two looks of the garbage collector. A batch of messages has some ten thousand, and all of them
#: go by themselves.
GC_THRESHOLD = 50_000

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="The service that a fleet of edge agents reports to."
)
app.add_typer(trust_commands.trust, name="trust")
app.add_typer(access_commands.tokens, name="tokens")
app.add_typer(access_commands.audit, name="audit")
app.add_typer(samples_commands.samples, name="samples")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cloud-hub {edgeloop.__version__}")
        raise typer.Exit(exit_codes.OK)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """What every command shares."""


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="Settings, a TOML file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of records, blobs and releases.")] = None,
) -> None:
    """Run the hub with everything embedded: broker, records, blobs, HTTP."""
    gc.set_threshold(GC_THRESHOLD)  # before all that is imported: it stays, and looking at it is a tenth of the start
    # uvicorn and SQLAlchemy take a while to import: --help does not wait for them.
    from cloud_hub.errors import StartError
    from cloud_hub.serve import serve as run
    from cloud_hub.settings import load

    try:
        settings = load(config, data=data)
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        # Alembic tells of every start; httptools of every odd request.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        run(settings, announce=lambda line: print(line, flush=True))
    except StartError as error:
        typer.echo(f"cloud-hub: {error}\n  {error.hint}", err=True)
        raise typer.Exit(error.code) from error


app.add_typer(identity_commands.enrolment, name="enrolment")
app.add_typer(identity_commands.devices, name="devices")
app.add_typer(identity_commands.broker_config, name="broker-config")
app.add_typer(retraining_commands.retraining, name="retraining")
app.command()(lineage_commands.lineage)
app.command()(cost_commands.costs)
app.command()(threshold_commands.thresholds)


def main() -> None:
    """Entry point of the console script."""
    app()
