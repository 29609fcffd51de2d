"""``cloud-hub retraining …``: training runs, told by and to the running hub."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from cloud_hub.access_commands import Config, Data, Json, ask, refusals

retraining = typer.Typer(no_args_is_help=True, help="Training runs: see, start and cancel them.")

RunId = Annotated[int, typer.Argument(metavar="RUN", min=1, help="As `retraining list` names it.")]


@retraining.command("list")
def list_runs(
    channel: Annotated[str | None, typer.Option(help="Only of this channel.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Runs, the newest first."""
    from urllib.parse import urlencode

    asked = {"limit": limit} | ({} if channel is None else {"channel": channel})
    with refusals():
        found = ask(config, data, "GET", f"retraining?{urlencode(asked)}")
    if as_json:
        typer.echo(json.dumps(found))
        return
    for run in found:
        told = run["reason"] or run["line"] or run["cause"]
        typer.echo(f"{run['id']}  {run['channel']}  {_state(run)}  {_time(run['created'])}  {told}")


@retraining.command("show")
def show(
    run: RunId,
    log: Annotated[int, typer.Option(min=0, max=10_000, help="Lines of its log that are printed.")] = 20,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One run, with the gate's verdict and the end of its log."""
    with refusals():
        found = ask(config, data, "GET", f"retraining/{run}")
        lines = ask(config, data, "GET", f"retraining/{run}/log?limit={log}")["lines"] if log else []
    if as_json:
        typer.echo(json.dumps({**found, "log": lines}))
        return
    typer.echo(f"run {found['id']} on {found['channel']}: {_state(found)}")
    for name in ("cause", "reason", "parent", "release", "rollout", "data", "line"):
        if found[name]:
            typer.echo(f"  {name:8} {found[name]}")
    for line in lines:
        typer.echo(f"  {line}")


@retraining.command("start")
def start(
    channel: Annotated[str, typer.Option(help="Whose current release is retrained.")] = "stable",
    reason: Annotated[str, typer.Option(help="Why; it stays in the records.")] = "by hand",
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Start a run by hand, whatever the channel's triggers are."""
    with refusals():
        run = ask(config, data, "POST", "retraining", {"channel": channel, "reason": reason})
    typer.echo(json.dumps(run) if as_json else f"run {run['id']} is {run['state']}")


@retraining.command("cancel")
def cancel(
    run: RunId,
    reason: Annotated[str, typer.Option(help="Why; it stays in the records.")] = "by hand",
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """End a run; what its trainer still does leads nowhere."""
    with refusals():
        found = ask(config, data, "POST", f"retraining/{run}/cancel", {"reason": reason})
    typer.echo(json.dumps(found) if as_json else f"run {found['id']} is {found['state']}")


def _state(run: dict[str, Any]) -> str:
    share = run["progress"]
    return str(run["state"]) if share is None else f"{run['state']} {share:.0%}"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
