"""``cloud-hub costs``: what the fleet costs, by day, channel and model."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from cloud_hub.access_commands import Config, Data, Json, ask, refusals


def costs(
    days: Annotated[int, typer.Option(min=1, max=3660, help="The latest, today among them.")] = 7,
    channel: Annotated[str | None, typer.Option(help="Only this channel's.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Print what was used, what that costs, and what the same traffic would have cost in the cloud."""
    query = {"days": days, "channel": channel, "model": model}
    with refusals():
        wanted = urlencode({name: value for name, value in query.items() if value is not None})
        found = ask(config, data, "GET", f"costs?{wanted}")
    if as_json:
        typer.echo(json.dumps(found))
        return
    for day in found["days"]:
        typer.echo(f"{day['day']}  {day['channel'] or '-'}  {day['model'] or '-'}  {_told(day, found['currency'])}")
    typer.echo(f"in all  {_told(found['total'], found['currency'])}")
    parts = ", ".join(f"{name} {value:.2f}" for name, value in found["total"]["money"].items() if name != "total")
    typer.echo(f"        {parts}")
    for each in found["budgets"]:
        budget = each["budget"]
        about = ", ".join(f"{name} {budget[name]}" for name in ("channel", "model") if budget[name]) or "everything"
        state = f"SPENT: {' and '.join(budget['stops']) or 'nothing'} stopped" if each["over"] else "not spent"
        typer.echo(f"budget of {about}: {each['money']:.2f} of {budget['money']:g} this {budget['period']}, {state}")
    for sentence in found["unknown"]:
        typer.echo(f"unknown: {sentence}")


def _told(amounts: dict[str, Any], currency: str) -> str:
    up = sum(amounts[name] for name in ("uplink_bytes", "escalation_bytes", "sample_bytes"))
    down = amounts["downlink_bytes"]
    return (
        f"{amounts['predictions']:,} predictions, {amounts['device_ns'] / 3.6e12:.3f} device hours, "
        f"{up:,} bytes up, {down:,} down, {amounts['teacher_calls']:,} teacher calls, "
        f"{amounts['training_s']:.1f} s of training: {amounts['money']['total']:.2f} {currency} "
        f"(all in the cloud: {amounts['all_in_cloud']:.2f})"
    )
