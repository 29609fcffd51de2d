"""``cloud-hub thresholds``: from which hardness inputs are sent to teachers, and why from there."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import urlencode

import typer

from cloud_hub.access_commands import Config, Data, Json, ask, refusals


def thresholds(
    channel: Annotated[str | None, typer.Option(help="Only of this channel.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Print the thresholds that the hub has fitted for channels whose policy has a target."""
    with refusals():
        found = ask(config, data, "GET", "thresholds" + (f"?{urlencode({'channel': channel})}" if channel else ""))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        wanted = next(f"{name} {one['target'][name]:g}" for name in ("accuracy", "share") if one["target"][name])
        expected = (
            "" if one["share"] is None else f": share {one['share']:.3f}, accuracy {one['accuracy']:.3f} expected"
        )
        typer.echo(f"{one['channel']}  {one['role']} {one['release'][:19]}…  for {wanted}")
        typer.echo(f"  threshold {one['threshold']:.4f}{expected}")
        typer.echo(f"  {one['reason']}")
    if not found:
        typer.echo("no channel has a threshold that was fitted: set escalation.target in a policy")
