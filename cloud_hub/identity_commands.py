"""``cloud-hub enrolment``, ``devices`` and ``broker-config``: who belongs to the fleet, told to the running hub."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_hub.access_commands import Config, Data, Json, ask, refusals
from edgeloop.whole_files import write_whole

if TYPE_CHECKING:
    from cloud_hub.settings import Settings

enrolment = typer.Typer(no_args_is_help=True, help="Tokens by which devices become part of the fleet.")
devices = typer.Typer(no_args_is_help=True, help="Devices that are part of it.")
broker_config = typer.Typer(no_args_is_help=True, help="What a broker that runs elsewhere has to be told.")


@enrolment.command("create")
def create(
    device: Annotated[str, typer.Option(help="Name of the device, or a pattern with *.")] = "*",
    channel: Annotated[list[str] | None, typer.Option(help="Channel that it may follow; may be repeated.")] = None,
    expires: Annotated[str, typer.Option(help="How long the token is good: 30m, 1h, 7d.")] = "1h",
    uses: Annotated[int, typer.Option(help="Devices that may enrol with it.")] = 1,
    replace_device: Annotated[
        bool, typer.Option("--replace", help="It takes the name of the device that has it now.")
    ] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a token. It is shown once."""
    from cloud_hub.durations import seconds_of

    with refusals():
        body = {
            "device": device,
            "channels": channel or ["stable"],
            "expires_s": seconds_of(expires),
            "uses": uses,
            "replaces": replace_device,
        }
        made = ask(config, data, "POST", "enrolments", body)
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo(made["token"])
    typer.echo(
        f"good until {_time(made['expires'])} for {uses} device{'s' * (uses != 1)} named {device}; it is shown once",
        err=True,
    )


@enrolment.command("list")
def list_enrolments(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """Tokens, newest first; what they are made of is nowhere."""
    with refusals():
        found = ask(config, data, "GET", "enrolments")
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        state = "withdrawn" if one["withdrawn"] else f"until {_time(one['expires'])}"
        channels = ", ".join(one["channels"])
        typer.echo(f"{one['id']}  {one['device']}  {channels}  {one['used']} of {one['uses']} used  {state}")


@enrolment.command("withdraw")
def withdraw(
    enrolment_id: Annotated[str, typer.Argument(metavar="ID", help="As `enrolment list` names it.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Make a token void; devices that have enrolled with it stay."""
    with refusals():
        ask(config, data, "DELETE", f"enrolments/{_segment(enrolment_id)}")


@devices.command("list")
def list_devices(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """Every device that was ever enrolled, and until when its certificate holds."""
    with refusals():
        found = ask(config, data, "GET", "certificates")
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        state = f"revoked: {one['reason']}" if one["revoked"] else f"until {_time(one['ends'])}"
        typer.echo(f"{one['device']}  {', '.join(one['channels'])}  {state}")


@devices.command("revoke")
def revoke(
    device: Annotated[str, typer.Argument(help="Its name.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the records.")] = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Take every right from a device, at once: broker and HTTP refuse it."""
    with refusals():
        ask(config, data, "POST", f"devices/{_segment(device)}/revoke", {"reason": reason})


@broker_config.command("mosquitto")
def mosquitto(
    out: Annotated[Path | None, typer.Option(help="Folder that gets the files; without, it is printed.")] = None,
    host: Annotated[str, typer.Option(help="Address that the broker listens on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="Its port.")] = 8883,
    user: Annotated[str, typer.Option(help="User that it runs as.")] = "mosquitto",
    config: Config = None,
    data: Data = None,
) -> None:
    """The configuration with which Mosquitto keeps the fleet's rules; the hub's own one has the same."""
    from cloud_hub.broker_config import BrokerFiles, mosquitto_config
    from cloud_hub.settings import load

    with refusals():
        files = _broker_files(load(config, data=data))
        if out is None:
            typer.echo(mosquitto_config(host, port, files, user), nl=False)
            return
        out.mkdir(parents=True, exist_ok=True)
        names: dict[str, Path] = {}
        for part in BrokerFiles.__dataclass_fields__:
            source = getattr(files, part)
            if source is not None:
                names[part] = (out / source.name).absolute()
                write_whole(names[part], source.read_bytes())
        (out / "mosquitto.conf").write_text(mosquitto_config(host, port, replace(files, **names), user))
    typer.echo(f"{out / 'mosquitto.conf'} is written; have {user} own the folder, and copy it again when rights change")


def _broker_files(settings: Settings) -> Any:
    from cloud_hub import exit_codes
    from cloud_hub.broker_access import files_in
    from cloud_hub.errors import StartError

    files = files_in(settings.data.absolute())
    if not files.rules.exists():
        raise StartError(
            f"{files.rules} is not there yet",
            "start the hub once with insecure = false: it makes its certificates and the broker's rules",
            exit_codes.NO_IDENTITY,
        )
    return files


def _segment(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
