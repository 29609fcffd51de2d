"""``cloud-hub lineage``: where a release or a prediction comes from, and what came of it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cloud_hub.access_commands import Config, Data, Json, records, refusals


def lineage(
    reference: Annotated[str, typer.Argument(help="A release's digest, its first 8 digits, or a prediction's id.")],
    device: Annotated[str | None, typer.Option(help="The device that gave the prediction.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Print the whole chain of a release or a prediction, from the records themselves, with or without a hub."""
    with refusals(), records(config, data) as db:
        from cloud_hub.lineage import Lineages, plain
        from cloud_hub.settings import load

        found = plain(Lineages(db, load(config, data=data).data / "attestations").of(reference, device))
    if as_json:
        typer.echo(json.dumps(found))
        return
    from cloud_hub.lineage.story import story

    for line in story(found):
        typer.echo(line)
