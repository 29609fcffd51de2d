"""``cloud-hub samples …``: what is kept of inputs, and its deletion, with a proof that anybody can check.

What changes something is asked of the hub that runs on the data folder. `verify` reads the folder itself, with or
without a hub, since it is there to check what a hub says.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from cloud_hub import exit_codes
from cloud_hub.access_commands import Config, Data, Json, ask, records, refusals

samples = typer.Typer(no_args_is_help=True, help="Inputs that devices sent for retraining.")

Device = Annotated[str | None, typer.Option(help="Only of this device.")]
Channel = Annotated[str | None, typer.Option(help="Only on this channel.")]
Since = Annotated[datetime | None, typer.Option(help="Taken at this time or later, UTC.")]
Until = Annotated[datetime | None, typer.Option(help="Taken before, UTC.")]


@samples.command("list")
def list_samples(
    device: Device = None,
    channel: Channel = None,
    since: Since = None,
    until: Until = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """How many there are, of each channel and strategy."""
    with refusals():
        found = ask(config, data, "GET", f"samples/totals{_query(device, channel, since, until)}")
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        typer.echo(
            f"{one['channel']}  {one['strategy']}  {one['samples']:,} samples, {one['labelled']:,} with a label  "
            f"{one['bytes']:,} bytes  {_time(one['since'])} to {_time(one['until'])}"
        )


@samples.command("delete")
def delete(
    device: Device = None,
    channel: Channel = None,
    since: Since = None,
    until: Until = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Delete what a device sent, for good, and print the proof."""
    query = _query(device, channel, since, until)
    with refusals():
        if not yes:
            count = sum(one["samples"] for one in ask(config, data, "GET", f"samples/totals{query}"))
            typer.confirm(f"Delete {count:,} samples, and inputs of escalations, for good?", abort=True)
        done = ask(config, data, "DELETE", f"samples{query}")
    if as_json:
        typer.echo(json.dumps(done))
        return
    typer.echo(f"{done['count']:,} deleted, {done['bytes']:,} bytes; proof {done['id']}, list {done['list_sha256']}")


@samples.command("deletions")
def deletions(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """What was deleted, the newest first."""
    with refusals():
        found = ask(config, data, "GET", "samples/deletions")
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        since = "the beginning" if one["since"] is None else _time(one["since"])
        whose = f"{one['device'] or 'all devices'} on {one['channel'] or 'all channels'}"
        typer.echo(f"{one['id']}  {_time(one['at'])}  {one['count']:,} of {whose}, {since} to {_time(one['until'])}")


@samples.command("verify")
def verify(config: Config = None, data: Data = None) -> None:
    """Check that what was deleted is gone, and that nobody has touched the proof: 0 where all holds, 9 where not."""
    from cloud_hub.samples.keeping import verify_folder
    from cloud_hub.settings import load

    with refusals(), records(config, data) as db:
        checked = verify_folder(load(config, data=data).data, db)
    for problem in checked.problems:
        typer.echo(f"cloud-hub: {problem}", err=True)
    if checked.problems:
        raise typer.Exit(exit_codes.AUDIT_BROKEN)
    typer.echo(f"{checked.deletions:,} deletions of {checked.samples:,} inputs hold; nothing of them is here")


def _query(device: str | None, channel: str | None, since: datetime | None, until: datetime | None) -> str:
    values: dict[str, Any] = {"device": device, "channel": channel, "since": _unix(since), "until": _unix(until)}
    given = {name: value for name, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _unix(at: datetime | None) -> float | None:
    return None if at is None else at.replace(tzinfo=UTC).timestamp()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
