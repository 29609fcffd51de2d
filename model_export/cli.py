"""The command line of model-export. It only translates: options, results, errors and exit codes."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from edgeloop import __version__
from model_export.commands import build as build_cli
from model_export.commands import convert as convert_cli
from model_export.commands import diff as diff_cli
from model_export.commands import keys as keys_cli
from model_export.commands import report as report_cli
from model_export.commands import sensitivity as sensitivity_cli
from model_export.commands import trial as trial_cli
from model_export.commands.console import (
    HubCaCert,
    HubToken,
    Json,
    hub_at,
    out,
    print_json,
    progress,
    reporting,
    say,
    size,
)
from model_export.errors import RequestError

if TYPE_CHECKING:
    from model_export.hub import Hub
    from model_export.trust.signing import ReleaseSigner

app = typer.Typer(
    name="model-export",
    help="From a trained model to a package that devices can run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys_cli.app)
app.command()(build_cli.build)
app.command()(convert_cli.convert)
app.command()(trial_cli.trial)
app.command()(report_cli.report)
app.command()(diff_cli.diff)
app.command()(sensitivity_cli.sensitivity)
PackagePath = Annotated[Path, typer.Argument(help="The package's folder.")]


def main() -> None:
    """Entry point of the console script."""
    # SIGTERM unwinds like an error, so that a half-written package is taken away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    app()


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the tool's version.")] = False) -> None:
    if version:
        out.print(f"model-export {__version__}", highlight=False)
        raise typer.Exit


@app.command()
def inspect(package: PackagePath, as_json: Json = False) -> None:
    """Show what a package holds, after auditing it; runs nothing of it."""
    with reporting(as_json):
        from model_export.reading.inspect import describe

        found = describe(package)
        if as_json:
            print_json(found)
            return
        table = Table(show_header=False)
        for key, value in found.items():
            text = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
            table.add_row(key, text)
        out.print(table)


@app.command()
def verify(
    package: Annotated[str, typer.Argument(help="The package's folder; with --hub also a release's digest.")],
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds that a variant's golden cases may take.")] = 30.0,
    provenance: Annotated[bool, typer.Option(help="Check who vouches for how it was built, too.")] = False,
    key: Annotated[list[Path] | None, typer.Option(help="Public key of somebody who is believed about that.")] = None,
    trust: Annotated[
        Path | None, typer.Option(envvar="MODEL_EXPORT_TRUST", help="Folder with the fleet's root, which says who is.")
    ] = None,
    hub: Annotated[str, typer.Option(help="Hub that has the newest metadata, and the provenance.")] = "",
    token: HubToken = "",
    ca_cert: HubCaCert = "",
    as_json: Json = False,
) -> None:
    """Audit a package, and run its golden cases on this machine."""
    with reporting(as_json):
        from model_export.reading.verify import require, table_of, verify_package

        with progress() as step:
            vouched = None
            if provenance or key:
                step("provenance")
                vouched = _vouched(package, key or [], trust, hub_at(hub, token, ca_cert) if hub else None)
                if package.startswith("sha256:"):
                    print_json(vouched) if as_json else say(_told(vouched))
                    return
            report = verify_package(Path(package), deadline_s=deadline, on_step=step)
        if as_json and report.ok:
            print_json(report.as_dict() | ({} if vouched is None else {"provenance": vouched}))
        elif not as_json:
            if vouched is not None:
                say(_told(vouched))
            out.print(table_of(report))
        require(report)


@app.command()
def publish(
    package: PackagePath,
    hub: Annotated[str, typer.Option(help="Address of the hub: https://host:port")],
    channel: Annotated[str, typer.Option(help="Channel whose devices shall get it.")],
    key: Annotated[
        list[Path] | None, typer.Option(help="Key of a publisher (NAME.key, or NAME.pub of a device).")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(envvar="MODEL_EXPORT_TRUST", help="Folder with the fleet's root, 1.root.json.")
    ] = None,
    token: HubToken = "",
    ca_cert: HubCaCert = "",
    as_json: Json = False,
) -> None:
    """Send a package's missing files to a hub, make it a release and give it to a channel."""
    with reporting(as_json):
        from model_export.publishing.publish import publish as send
        from model_export.reading.audited import open_audited
        from model_export.trust.provenance import find

        with progress() as step, hub_at(hub, token, ca_cert) as opened_hub:
            signer = _release_signer(opened_hub, key or [], trust)
            step("auditing")
            opened = open_audited(package)
            step("publishing")
            documents = find(package)
            if documents is None:
                step("no provenance beside the package, so nobody can check how it was built; going on without")
            done = send(
                opened,
                opened_hub,
                channel,
                signer=signer,
                documents=documents,
                on_file=lambda path, count: step(f"sent {path} ({size(count)})"),
            )
        if as_json:
            print_json(dataclasses.asdict(done))
            return
        state = f"rollout {done.rollout}" if done.rollout else "current"
        signed = f"signed as {done.target}; " if done.target else ""
        say(
            f"{done.name} {done.version} is a release on channel {done.channel} ({state}); "
            f"{signed}sent {done.files_sent} of {done.files} files, {size(done.bytes_sent)} of {size(done.bytes)}"
        )
        say(done.digest)


def _release_signer(hub: Hub, keys: list[Path], trust: Path | None) -> ReleaseSigner | None:
    if trust is None:
        if keys:
            raise RequestError(
                "whose root is believed is not said", "--trust FOLDER or MODEL_EXPORT_TRUST, with 1.root.json in it"
            )
        return None
    from model_export.trust.folder import TrustFolder
    from model_export.trust.key_files import open_signer
    from model_export.trust.signing import ReleaseSigner

    return ReleaseSigner(hub, TrustFolder(trust), [open_signer(path) for path in keys])


def _vouched(place: str, files: list[Path], trust: Path | None, hub: Hub | None) -> dict[str, Any]:
    """Who vouches for how a release was made, and of what."""
    from model_export.trust import believing
    from model_export.trust.provenance import check

    found = believing.subject(place, hub)
    said, keyid = check(found.documents, found.digest, found.model, believing.keys(found, files, trust, hub))
    return {"builder": said.builder, "key": keyid, "materials": dict(said.materials), "sbom": said.bill}


def _told(vouched: dict[str, Any]) -> str:
    return f"made by {vouched['builder']}; the key {vouched['key'][:8]} vouches for it"
