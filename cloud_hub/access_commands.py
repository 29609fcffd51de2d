"""The commands ``cloud-hub tokens …`` and ``cloud-hub audit …``.

Tokens are made by the hub that runs on the data folder: its records have one writer. The audit log is read from the
records themselves, with or without a hub, since it is there to check what a hub says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_hub import exit_codes
from cloud_hub.errors import BadRequest, HubError, NotFound

if TYPE_CHECKING:
    from cloud_hub.records.database import Database

tokens = typer.Typer(no_args_is_help=True, help="Tokens of programs: make, list and revoke them.")
audit = typer.Typer(no_args_is_help=True, help="The record of who changed what.")

Config = Annotated[Path | None, typer.Option(help="Settings, a TOML file.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the hub's records.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@tokens.command("create")
def create(
    name: Annotated[str, typer.Option(help="Whom it is for: the audit log knows it by this name.")],
    role: Annotated[str, typer.Option(help="viewer, operator, publisher, approver or admin.")],
    channel: Annotated[list[str] | None, typer.Option(help="The only channel that it may touch; repeat it.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="The only model that it may touch; repeat it.")] = None,
    expires: Annotated[str, typer.Option(help="After how long it ends: 90d, 12h, … or never.")] = "90d",
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it, this once."""
    from cloud_hub.durations import seconds_of

    with refusals():
        body = {
            "name": name,
            "role": role,
            "channels": channel or None,
            "models": model or None,
            "expires_in_s": seconds_of(expires),
        }
        made = ask(config, data, "POST", "tokens", body)
    typer.echo(json.dumps(made) if as_json else made["token"])


@tokens.command("list")
def list_tokens(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """Every token, without its secret."""
    with refusals():
        found = ask(config, data, "GET", "tokens")
    if as_json:
        typer.echo(json.dumps(found))
        return
    for token in found:
        limits = [f"{kind} {', '.join(token[kind])}" for kind in ("channels", "models") if token[kind]]
        over = "revoked" if token["revoked"] else f"expires {_day(token['expires'])}"
        typer.echo("  ".join([token["id"], token["role"], token["name"], over, *limits]))


@tokens.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(help="Its id, the part between el_ and the next _.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """End a token at once."""
    from urllib.parse import quote

    with refusals():
        found = ask(config, data, "DELETE", f"tokens/{quote(token, safe='')}")
    typer.echo(f"{found['id']} ({found['name']}) is revoked")


@audit.command("verify")
def verify(
    anchor: Annotated[str, typer.Option(help="A head that was kept elsewhere: NUMBER:HASH.")] = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Walk the whole chain: 0 where it holds, and its head is printed; 8 where it does not."""
    from cloud_hub.access import audit as log

    with refusals(), records(config, data) as db, db.read() as connection:
        verdict = log.verify(connection, _anchor(anchor))
    if verdict.problem:
        typer.echo(f"cloud-hub: the audit log does not hold: {verdict.problem}", err=True)
        raise typer.Exit(exit_codes.AUDIT_BROKEN)
    typer.echo(f"the audit log holds; keep its head elsewhere: {verdict.head.number}:{verdict.head.hash}")


@audit.command("show")
def show(
    about: Annotated[str | None, typer.Option(help="Only changes of this thing, such as a channel's name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    config: Config = None,
    data: Data = None,
) -> None:
    """The newest changes, the newest last."""
    from cloud_hub.access import audit as log

    with refusals(), records(config, data) as db, db.read() as connection:
        for entry in reversed(log.newest(connection, limit, about)):
            at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="seconds")
            changed = f"{json.dumps(entry.before)} → {json.dumps(entry.after)}"
            typer.echo(f"{entry.number}  {at}  {entry.who}  {entry.what}  {entry.about}  {changed}")


@audit.command("export")
def export(config: Config = None, data: Data = None) -> None:
    """Every change as a line of JSON, the oldest first, with its hashes."""
    from cloud_hub.access import audit as log

    with refusals(), records(config, data) as db, db.read() as connection:
        last = 0
        while page := log.entries(connection, last, 1000):
            for entry in page:
                typer.echo(json.dumps(log.plain(entry)))
            last = page[-1].number


def ask(config: Path | None, data: Path | None, method: str, path: str, body: Any = None) -> Any:
    """Ask the hub that runs on a data folder, as the owner of that folder.

    Args:
        config: as for ``cloud-hub serve``.
        data: as for ``cloud-hub serve``.
        method: of HTTP.
        path: below ``/api/v1/``.
        body: plain JSON, or None.

    Raises:
        StartError: the settings are wrong.
        NotFound: no hub runs there.
        BadRequest: it refused.
    """
    import httpx

    from cloud_hub.access.local import find_local
    from cloud_hub.settings import load

    hub = find_local(load(config, data=data).data)
    headers = {"authorization": f"Bearer {hub.token}"}
    try:
        # The secret is worth nothing but to the process that holds this port: no certificate could add to that.
        answer = httpx.request(
            method, f"{hub.url}/api/v1/{path}", json=body, headers=headers, timeout=30.0, verify=False
        )
    except httpx.TransportError as error:
        raise NotFound(f"no hub answers at {hub.url}", "start it with cloud-hub serve") from error
    if not answer.is_success:
        told = answer.json()
        raise BadRequest(str(told["error"]), str(told["hint"]))
    return answer.json() if answer.content else None


@contextmanager
def refusals() -> Iterator[None]:
    """Whatever is refused is said, and ends the command with its code."""
    from cloud_hub.errors import StartError

    try:
        yield
    except HubError as error:
        typer.echo(f"cloud-hub: {error}\n  {error.hint}", err=True)
        raise typer.Exit(error.code if isinstance(error, StartError) else exit_codes.REFUSED) from error


@contextmanager
def records(config: Path | None, data: Path | None) -> Iterator[Database]:
    """The records in a data folder, to be read, with or without a hub that runs on them; raises `NotFound`."""
    from cloud_hub.records.database import Database
    from cloud_hub.settings import load

    folder = load(config, data=data).data
    if not (folder / "hub.db").is_file():
        raise NotFound(f"there are no records in {folder}", "name the hub's folder with --data")
    db = Database.in_folder(folder)
    try:
        yield db
    finally:
        db.close()


def _anchor(text: str) -> Any:
    from cloud_hub.access.audit import Head

    if not text:
        return None
    number, _, digest = text.partition(":")
    if not number.isdecimal() or len(digest) != 64:
        raise BadRequest(f"{text[:80]!r} is no head", "give NUMBER:HASH, as cloud-hub audit verify prints it")
    return Head(int(number), digest)


def _day(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).date().isoformat()
