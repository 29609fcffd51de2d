"""The commands ``cloud-hub trust …``: what the hub's keys and metadata are, for whoever owns the data folder.

``show`` and ``rotate-online`` work beside a hub that runs, since metadata are only read and keys are files. ``import``
writes records, which have one writer: it is for a hub that is stopped; one that runs takes metadata over HTTP.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_hub import exit_codes

if TYPE_CHECKING:
    from cloud_hub.trust.view import TrustView

trust = typer.Typer(no_args_is_help=True, help="The hub's signing keys, and the metadata that people sign.")

Config = Annotated[Path | None, typer.Option(help="Settings, a TOML file.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the hub's records and keys.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@trust.command("show")
def show(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """Who signs what, until when, what has to be done, and the public halves of the hub's keys."""
    from cloud_hub.settings import load

    with _refusals():
        settings = load(config, data=data)
        found = _view(settings.data)
    if as_json:
        typer.echo(json.dumps(found.to_document(settings.fleet, signed=not settings.insecure)))
        return
    typer.echo("the hub signs" if found.ready else f"the hub signs nothing: {found.problem}")
    for role in found.roles:
        until = datetime.fromtimestamp(role.expires, UTC)
        typer.echo(f"  {role.role} {role.version}, until {until:%Y-%m-%d}, {role.threshold} of {len(role.keyids)} keys")
    typer.echo("its keys")
    for name, keys in found.online_keys.items():
        for key in keys:
            used = "in use" if key["in_use"] else "nobody has signed for it"
            typer.echo(f"  {name} {key['number']}: {key['keytype']} {key['keyval']['public']} ({used})")
    for warning in found.warnings:
        typer.echo(f"warning: {warning}")


@trust.command("import")
def take(
    files: Annotated[
        list[Path], typer.Argument(help="Metadata files, as people signed them; several versions of root.")
    ],
    config: Config = None,
    data: Data = None,
) -> None:
    """Take metadata that people signed, while the hub is stopped; versions that were lost may be left out.

    Root comes first, version by version, then targets, then publishers' roles. The first that is refused ends it; what
    was taken before stays.
    """
    from cloud_hub.data_folder import DataFolder
    from cloud_hub.records.database import Database
    from cloud_hub.trust.key_files import KeyFiles
    from cloud_hub.trust.online import OnlineTrust

    with _refusals():
        contents = sorted((_read(file) for file in files), key=_order)
        folder = _folder(config, data)
        lock = DataFolder(folder)
        try:
            db = Database.in_folder(folder)
            try:
                db.migrate()
                keys = KeyFiles(folder / "trust" / "keys")
                keys.ensure()
                hub = OnlineTrust(db, keys)
                for role, version, content in contents:
                    if role == "root" and version <= hub.version("root"):
                        continue  # a chain is given whole
                    taken = hub.accept(role, content, restored=True)
                    typer.echo(f"took {taken.role} {taken.version}")
            finally:
                db.close()
        finally:
            lock.close()


@trust.command("rotate-online")
def rotate(
    roles: Annotated[
        list[str] | None, typer.Argument(help="Roles whose keys are replaced; all, where none is named.")
    ] = None,
    config: Config = None,
    data: Data = None,
) -> None:
    """Make new keys of the hub beside the present ones; they are used once people have signed for them.

    Where a role has a new key already that nobody has signed for, it keeps that one.
    """
    from cloud_hub.errors import BadRequest
    from cloud_hub.trust.key_files import KeyFiles
    from edgeloop.trust.names import ONLINE

    with _refusals():
        folder = _folder(config, data)
        for role in roles or ONLINE:
            if role not in ONLINE:
                raise BadRequest(f"the hub has no key of {role!r}", f"it has those of {', '.join(ONLINE)}")
        found, keys = _view(folder), KeyFiles(folder / "trust" / "keys")
        for role in roles or ONLINE:
            held = found.online_keys[role]
            if held and not held[-1]["in_use"]:
                typer.echo(f"{role}: key {held[-1]['number']} waits to be signed for")
            else:
                typer.echo(f"{role}: made key {keys.make(role).number}")
    typer.echo(
        "now sign for them, root for snapshot and timestamp, targets for the others: model-export keys rotate FOLDER "
        "online --hub URL, then model-export keys push; the hub drops the old keys then"
    )


def _view(folder: Path) -> TrustView:
    """What there is in a data folder, which is not written."""
    from sqlalchemy.exc import OperationalError

    from cloud_hub.records.database import Database
    from cloud_hub.trust.key_files import KeyFiles
    from cloud_hub.trust.online import OnlineTrust
    from cloud_hub.trust.view import view

    keys = KeyFiles(folder / "trust" / "keys")
    if not (folder / "hub.db").exists():
        return view({}, keys.all(), {}, datetime.now(UTC))
    db = Database.in_folder(folder)
    try:
        return OnlineTrust(db, keys, clock=time.time).view()
    except OperationalError:  # records of a hub that had no signatures yet
        return view({}, keys.all(), {}, datetime.now(UTC))
    finally:
        db.close()


def _folder(config: Path | None, data: Path | None) -> Path:
    from cloud_hub.settings import load

    return load(config, data=data).data


def _read(path: Path) -> tuple[str, int, bytes]:
    """Role, version and bytes of a file; the name says the role, with or without a version before it."""
    from cloud_hub.errors import BadRequest

    try:
        content = path.read_bytes()
        version = int(json.loads(content)["signed"]["version"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(
            f"{path} is no metadata file: {error}", "name the files that model-export keys wrote"
        ) from error
    return re.sub(r"^[0-9]+\.", "", path.name).removesuffix(".json"), version, content


def _order(file: tuple[str, int, bytes]) -> tuple[int, str, int]:
    role, version, _ = file
    return {"root": 0, "targets": 1}.get(role, 2), role, version


@contextmanager
def _refusals() -> Iterator[None]:
    """An error of the hub is a sentence and an exit code."""
    from cloud_hub.errors import HubError, StartError

    try:
        yield
    except HubError as error:
        typer.echo(f"cloud-hub: {error}" + (f"\n  {error.hint}" if error.hint else ""), err=True)
        code = error.code if isinstance(error, StartError) else exit_codes.METADATA_REFUSED
        raise typer.Exit(code) from error
