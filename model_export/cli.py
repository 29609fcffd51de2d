"""The command line of model-export. It only translates: options, results, errors and exit codes."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from edgeloop import __version__
from model_export import keys_cli
from model_export.console import HubCaCert, HubToken, Json, err, out, print_json, progress, reporting, say, size
from model_export.errors import RequestError

if TYPE_CHECKING:
    from model_export.hub import Hub
    from model_export.signing import ReleaseSigner

app = typer.Typer(
    name="model-export",
    help="From a trained model to a package that devices can run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys_cli.app)
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
def build(
    source: Annotated[str, typer.Argument(help="model.onnx, estimator.joblib, or module:factory.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the package; it must not exist yet.")],
    data: Annotated[
        Path, typer.Option(help="Labelled examples: .npz, .safetensors, .csv, .parquet, or the folder of a dataset.")
    ],
    context: typer.Context,
    labels: Annotated[str, typer.Option(help="Names of the classes: a,b,c or a file with one name a line.")] = "",
    label_column: Annotated[str, typer.Option(help="Array or column with the true label.")] = "",
    precision: Annotated[str, typer.Option(help="Variants to make: fp32, int8 or both, separated by commas.")] = "",
    name: Annotated[str, typer.Option(help="Name of the package; by default the source's.")] = "",
    version: Annotated[str, typer.Option(help="Version of the package.")] = "1.0.0",
    trust_source: Annotated[bool, typer.Option(help="Load a joblib file, which runs the code in it.")] = False,
    role: Annotated[list[str] | None, typer.Option(help="NAME=ROLE of an output, where it is not clear.")] = None,
    calibration_share: Annotated[float, typer.Option(min=0.05, max=0.9, help="Share of the data for int8.")] = 1 / 3,
    calibration: Annotated[
        Literal["minmax", "entropy", "percentile"], typer.Option(help="How int8 finds the range of an activation.")
    ] = "minmax",
    int8_scheme: Annotated[Literal["u8s8", "s8s8"], typer.Option(help="Activations and weights of int8.")] = "u8s8",
    reduce_range: Annotated[bool, typer.Option(help="Weights of 7 bits, for x86 without VNNI.")] = False,
    max_loss: Annotated[float, typer.Option(min=0.0, max=1.0, help="Accuracy that int8 may lose.")] = 0.03,
    validation_rows: Annotated[int, typer.Option(min=1, help="Most rows of the validation set in the package.")] = 2000,
    reproducible: Annotated[bool, typer.Option(help="Leave measured latency out of the package.")] = False,
    input_kind: Annotated[
        Literal["numbers", "image", "tokens", "text"] | None,
        typer.Option(help="What insights take the first input for; by default found from its shape, type and name."),
    ] = None,
    model_license: Annotated[str, typer.Option("--license", help="The model's licence, as SPDX names it.")] = "",
    data_license: Annotated[str, typer.Option(help="The data's licence, as SPDX names it.")] = "",
    like: Annotated[
        Path | None,
        typer.Option(help="Package whose name, labels, recipe, golden inputs and validation set this one gets."),
    ] = None,
    lineage: Annotated[
        Path | None, typer.Option(help="JSON file with what its lineage shall tell besides: trainer, run, …")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a package from an ONNX file, a scikit-learn classifier or a PyTorch module."""
    with reporting(as_json):
        from model_export.build import build_package
        from model_export.provenance import Licences
        from model_export.quantize import Int8Options

        if like is not None:
            _nothing_besides(context)
        with progress() as step:
            report = build_package(
                source,
                output,
                data,
                labels=_labels(labels),
                label_column=label_column or None,
                precision=tuple(p.strip() for p in precision.split(",")) if precision else None,
                name=name or None,
                version=version,
                trust_source=trust_source,
                roles=_roles(role or []),
                calibration_share=calibration_share,
                int8=Int8Options(int8_scheme, calibration, reduce_range),
                max_loss=max_loss,
                validation_rows=validation_rows,
                reproducible=reproducible,
                input_kind=input_kind,
                licences=Licences(model_license, data_license),
                like=like,
                lineage=None if lineage is None else _told_lineage(lineage),
                on_step=step,
            )
        if as_json:
            print_json(report.as_dict())
            return
        table = Table("variant", "accuracy", "size", "latency")
        for variant, metrics in report.metrics.items():
            latency = "" if metrics.latency_ms is None else f"{metrics.latency_ms:.3f} ms"
            table.add_row(variant, f"{metrics.accuracy:.4f}", size(metrics.size_bytes), latency)
        out.print(table)
        for note in report.notes:
            err.print(f"note: {note}", highlight=False, markup=False)
        out.print(f"{report.path}\n{report.digest}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def inspect(package: PackagePath, as_json: Json = False) -> None:
    """Show what a package holds, after auditing it; runs nothing of it."""
    with reporting(as_json):
        from model_export.inspect import describe

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
        from model_export.verify import require, verify_package

        with progress() as step:
            vouched = None
            if provenance or key:
                step("provenance")
                vouched = _vouched(package, key or [], trust, _hub(hub, token, ca_cert) if hub else None)
                if package.startswith("sha256:"):
                    print_json(vouched) if as_json else say(_told(vouched))
                    return
            report = verify_package(Path(package), deadline_s=deadline, on_step=step)
        if as_json and report.ok:
            print_json(report.as_dict() | ({} if vouched is None else {"provenance": vouched}))
        elif not as_json:
            if vouched is not None:
                say(_told(vouched))
            table = Table("variant", "golden cases", "worst difference", "result")
            for check in report.checks:
                worst = "" if check.worst_difference is None else f"{check.worst_difference:.2e}"
                table.add_row(check.variant, str(check.cases), worst, "ok" if check.ok else check.reason)
            out.print(table)
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
        from model_export.audited import open_audited
        from model_export.provenance import find
        from model_export.publish import publish as send

        with progress() as step, _hub(hub, token, ca_cert) as opened_hub:
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
    from model_export.key_files import open_signer
    from model_export.signing import ReleaseSigner
    from model_export.trust_folder import TrustFolder

    return ReleaseSigner(hub, TrustFolder(trust), [open_signer(path) for path in keys])


def _hub(address: str, token: str, ca_cert: str) -> Hub:
    from model_export.hub import Hub

    return Hub(address, token=token, ca_cert=Path(ca_cert) if ca_cert else None)


def _vouched(place: str, files: list[Path], trust: Path | None, hub: Hub | None) -> dict[str, Any]:
    """Who vouches for how a release was made, and of what."""
    from model_export import believing
    from model_export.provenance import check

    found = believing.subject(place, hub)
    said, keyid = check(found.documents, found.digest, found.model, believing.keys(found, files, trust, hub))
    return {"builder": said.builder, "key": keyid, "materials": dict(said.materials), "sbom": said.bill}


def _told(vouched: dict[str, Any]) -> str:
    return f"made by {vouched['builder']}; the key {vouched['key'][:8]} vouches for it"


def _told_lineage(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read as JSON: {error}", "give a file with a JSON object") from error
    if not isinstance(found, dict):
        raise RequestError(f"{path} holds no JSON object", 'write it as {"trainer": …}')
    return found


def _nothing_besides(context: typer.Context) -> None:
    """With --like the base decides: what else is said would be silently forgotten."""
    own = ("source", "output", "data", "version", "model_license", "data_license", "like", "lineage", "as_json")
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in own and source is not None and source.name != "DEFAULT":
            option = f"--{name.replace('_', '-')}"
            raise RequestError(f"{option} and --like contradict one another", f"leave {option} out")


def _labels(text: str) -> tuple[str, ...] | None:
    if not text:
        return None
    path = Path(text)
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{text} cannot be read as a list of labels: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _roles(pairs: list[str]) -> dict[str, str]:
    from model_export.roles import ROLES

    roles = {}
    for pair in pairs:
        name, _, role = pair.rpartition("=")
        if not name or role not in ROLES:
            raise typer.BadParameter(f"--role {pair} is not NAME=ROLE with a role of {', '.join(ROLES)}")
        roles[name] = role
    return roles
