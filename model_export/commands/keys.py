"""``model-export keys``: who may sign what in a fleet. It only translates: options, results and errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from model_export.commands.console import HubCaCert, HubToken, Json, err, hub_at, out, print_json, reporting, say
from model_export.errors import KeyFileError, RequestError

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

    from model_export.trust.folder import RoleState, TrustFolder
    from model_export.trust.key_files import PublicKey

app = typer.Typer(name="keys", help="Keys, and who may sign what in a fleet.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Folder of the fleet's offline metadata.")]
Publics = Annotated[list[Path], typer.Argument(help="Public keys (NAME.pub).")]
SigningKeys = Annotated[
    list[Path] | None, typer.Option("--key", help="Sign at once with this key (NAME.key, or NAME.pub of a device).")
]
HubAddress = Annotated[str, typer.Option("--hub", help="Address of the hub: https://host:port")]
Threshold = Annotated[int | None, typer.Option(min=1, help="Signatures that are needed.")]


@app.command()
def create(
    place: Annotated[Path, typer.Argument(help="NAME: makes NAME.key and NAME.pub.")],
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Leave the private key unencrypted.")] = False,
    signer: Annotated[str, typer.Option(help="URI of a device or service that keeps the key: hsm:…, awskms:…")] = "",
    public_key: Annotated[Path | None, typer.Option(help="With --signer: the key's public half as PEM.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key, or note one that a device or a service keeps."""
    with reporting(as_json):
        from model_export.trust import key_files

        if bool(signer) != (public_key is not None):
            raise RequestError(
                "--signer and --public-key belong together", "give both, or none to make a key in a file"
            )
        if public_key is not None:
            made = key_files.from_signer(place, signer, public_key)
        else:
            made = key_files.create(place, encrypted=not no_passphrase)
        _report(as_json, {"name": made.name, "keyid": made.keyid}, f"{made.name}: {made.keyid}")


@app.command()
def init(
    folder: Folder,
    root: Annotated[list[Path], typer.Option(help="Public key of a holder of root; repeat for more.")],
    targets: Annotated[list[Path], typer.Option(help="Public key of a holder of targets; repeat for more.")],
    threshold: Annotated[int, typer.Option(min=1, help="Signatures that root needs.")] = 1,
    targets_threshold: Annotated[int, typer.Option(min=1, help="Signatures that targets needs.")] = 1,
    hub: HubAddress = "",
    online: Annotated[Path | None, typer.Option(help="Instead of --hub: its answer to GET /api/v1/trust.")] = None,
    key: SigningKeys = None,
    token: HubToken = "",
    ca_cert: HubCaCert = "",
    as_json: Json = False,
) -> None:
    """Draft a fleet's first root and targets: people's keys, and the hub's own."""
    with reporting(as_json):
        from model_export.trust import changes

        opened, signers = _folder(folder), _signers(key)
        changes.begin(
            opened,
            (_publics(root), threshold),
            (_publics(targets), targets_threshold),
            _online_keys(hub, online, token, ca_cert),
            _now(),
        )
        _finish(as_json, opened, signers)


@app.command()
def allow(
    folder: Folder,
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    publishers: Publics,
    threshold: Threshold = None,
    key: SigningKeys = None,
    as_json: Json = False,
) -> None:
    """Let people publish a model."""
    with reporting(as_json):
        from model_export.trust import changes

        opened, signers = _folder(folder), _signers(key)
        changes.allow(opened, model, _publics(publishers), threshold, _now())
        _finish(as_json, opened, signers)


@app.command()
def revoke(
    folder: Folder,
    revoked: Annotated[str, typer.Argument(help="The key: NAME.pub, its name, or 8 or more digits of its id.")],
    role: Annotated[str, typer.Option(help="Take it from this role only, such as releases.digits.")] = "",
    key: SigningKeys = None,
    as_json: Json = False,
) -> None:
    """Take a key from its roles."""
    with reporting(as_json):
        from model_export.trust import changes

        opened, signers = _folder(folder), _signers(key)
        taken = changes.revoke(opened, opened.keyid(revoked), role or None, _now())
        if not as_json:
            say(f"{revoked} may no longer sign {', '.join(taken)}")
        for each in taken:
            if each.startswith("releases."):
                err.print(
                    f"note: once pushed, sign what it signed again: model-export keys renew {folder} {each}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
        _finish(as_json, opened, signers)


@app.command()
def rotate(
    folder: Folder,
    role: Annotated[str, typer.Argument(help="root, targets, releases.MODEL, or online for the hub's own keys.")],
    to: Annotated[list[Path] | None, typer.Option(help="Public key that it has from now on; repeat for more.")] = None,
    threshold: Threshold = None,
    hub: HubAddress = "",
    online: Annotated[Path | None, typer.Option(help="Instead of --hub: its answer to GET /api/v1/trust.")] = None,
    key: SigningKeys = None,
    token: HubToken = "",
    ca_cert: HubCaCert = "",
    as_json: Json = False,
) -> None:
    """Give a role other keys: those of --to, or for the hub's roles those that the hub has now."""
    with reporting(as_json):
        from model_export.trust import changes
        from model_export.trust.key_files import PublicKey

        opened, signers = _folder(folder), _signers(key)
        if role == changes.ONLINE_ROLES:
            held = _online_keys(hub, online, token, ca_cert)
            keys: dict[str, Sequence[PublicKey]] = {each: [PublicKey(each, public)] for each, public in held.items()}
        elif to:
            keys = {role: _publics(to)}
        else:
            raise RequestError(f"which keys shall {role} have?", "--to NAME.pub, once for each")
        if not changes.rotate(opened, keys, threshold, _now()):
            raise RequestError(f"{role} has these keys already", "make new ones first")
        _finish(as_json, opened, signers)


@app.command()
def renew(
    folder: Folder,
    role: Annotated[str, typer.Argument(help="root, targets or releases.MODEL.")],
    forget: Annotated[list[str] | None, typer.Option(help="Path of a release that it shall name no longer.")] = None,
    key: SigningKeys = None,
    as_json: Json = False,
) -> None:
    """Draft the next version of a role, which expires later."""
    with reporting(as_json):
        from model_export.trust import changes

        opened, signers = _folder(folder), _signers(key)
        changes.renew(opened, role, forget or [], _now())
        _finish(as_json, opened, signers)


@app.command()
def sign(
    folder: Folder,
    key: Annotated[list[Path], typer.Option("--key", help="NAME.key, or NAME.pub of a device or service.")],
    as_json: Json = False,
) -> None:
    """Add a signature to every draft that waits for one of this key."""
    with reporting(as_json):
        opened, signers = _folder(folder), _signers(key)
        opened.sign(signers)
        _show(as_json, opened)


@app.command()
def pull(folder: Folder, hub: HubAddress, token: HubToken = "", ca_cert: HubCaCert = "", as_json: Json = False) -> None:
    """Fetch what the hub has newer, checked by the root in the folder."""
    with reporting(as_json):
        from model_export.trust import syncing

        with hub_at(hub, token, ca_cert) as opened_hub:
            files = syncing.pull(opened_hub, _folder(folder))
        _report(as_json, {"files": files}, "\n".join(files) or "nothing is newer")


@app.command()
def push(folder: Folder, hub: HubAddress, token: HubToken = "", ca_cert: HubCaCert = "", as_json: Json = False) -> None:
    """Send the hub what it lacks, once enough people have signed."""
    with reporting(as_json):
        from model_export.trust import syncing

        with hub_at(hub, token, ca_cert) as opened_hub:
            files = syncing.push(opened_hub, _folder(folder))
        _report(as_json, {"files": files}, "\n".join(files) or "the hub has everything")


@app.command()
def show(folder: Folder, as_json: Json = False) -> None:
    """Who may sign what, until when, who has signed, and the releases that are named."""
    with reporting(as_json):
        _show(as_json, _folder(folder), releases=True)


def _finish(as_json: bool, folder: TrustFolder, signers: list[Signer]) -> None:
    """The end of every change: sign with the keys that were given, and show how far it is."""
    if signers:
        folder.sign(signers)
    _show(as_json, folder)


def _show(as_json: bool, folder: TrustFolder, *, releases: bool = False) -> None:
    states: list[RoleState] = [folder.state(role) for role in folder.roles()]
    who, named = folder.signers(), folder.releases()
    if as_json:
        print_json({"roles": [state.as_dict() for state in states], "signers": who, "releases": named})
        return
    table = Table("role", "version", "expires", "needs", "signed by", "may sign", "missing")
    for state in states:
        table.add_row(
            state.role,
            str(state.version),
            f"{state.expires:%Y-%m-%d}",
            str(state.threshold),
            "\n".join(state.signed),
            "\n".join(state.unsigned),
            str(state.missing or ""),
        )
    out.print(table)
    for role, names in who.items():
        if role not in folder.roles():
            say(f"{role}: {', '.join(names)}")
    if releases:
        for path, digest in named.items():
            say(f"{path} {digest}")


def _report(as_json: bool, document: dict[str, Any], text: str) -> None:
    if as_json:
        print_json(document)
    else:
        say(text)


def _folder(path: Path) -> TrustFolder:
    from model_export.trust.folder import TrustFolder

    return TrustFolder(path)


def _publics(paths: Sequence[Path]) -> list[PublicKey]:
    from model_export.trust.key_files import read_public

    return [read_public(path) for path in paths]


def _signers(paths: Sequence[Path] | None) -> list[Signer]:
    from model_export.trust.key_files import open_signer

    return [open_signer(path) for path in paths or ()]


def _online_keys(address: str, answer: Path | None, token: str, ca_cert: str) -> dict[str, Key]:
    """The hub's public keys, from the hub or from a file with its answer."""
    from model_export.trust.folder import untrusted
    from model_export.trust.syncing import state_of

    if bool(address) == (answer is not None):
        raise RequestError("the hub's own keys are needed", "--hub URL, or --online FILE with its answer")
    if answer is None:
        with hub_at(address, token, ca_cert) as hub:
            return dict(state_of(hub).online)
    from edgeloop.trust.state import TrustState

    try:
        document = json.loads(answer.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{answer} is no answer of a hub: {error}") from error
    with untrusted(f"{answer}: "):
        return dict(TrustState.from_document(document).online)


def _now() -> datetime:
    return datetime.now(UTC)
