"""``model-export build``. It only translates: options, result and errors."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from model_export.commands.console import (
    HubCaCert,
    HubToken,
    Json,
    err,
    hub_at,
    out,
    print_json,
    progress,
    reporting,
    say,
    size,
)
from model_export.commands.steps import BUILD
from model_export.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_export.building.planning import Plan
    from model_export.hub import Hub
    from model_export.tuning.options import TuneOptions
    from model_export.tuning.trials import Objective


def build(
    source: Annotated[str, typer.Argument(help="model.onnx, estimator.joblib, or module:factory.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the package; it must not exist yet.")],
    data: Annotated[
        Path, typer.Option(help="Labelled examples: a file, a folder of pictures by class, or a hub's dataset.")
    ],
    context: typer.Context,
    labels: Annotated[str, typer.Option(help="Names of the classes: a,b,c or a file with one name a line.")] = "",
    label_column: Annotated[str, typer.Option(help="Array or column with the true label.")] = "",
    precision: Annotated[
        str, typer.Option(help="Variants to make: fp32, fp16, bf16, int8, int4, with commas between.")
    ] = "",
    target: Annotated[
        str, typer.Option(help="What variants are made for: cpu, cuda, tensorrt, … with commas between.")
    ] = "cpu",
    name: Annotated[str, typer.Option(help="Name of the package; by default the source's.")] = "",
    version: Annotated[str, typer.Option(help="Version of the package.")] = "1.0.0",
    trust_source: Annotated[bool, typer.Option(help="Load a joblib file, which runs the code in it.")] = False,
    role: Annotated[list[str] | None, typer.Option(help="NAME=ROLE of an output, where it is not clear.")] = None,
    calibration_share: Annotated[float, typer.Option(min=0.05, max=0.9, help="Share of the data for int8.")] = 1 / 3,
    calibration: Annotated[
        Literal["minmax", "entropy", "percentile"], typer.Option(help="How int8 finds the range of an activation.")
    ] = "minmax",
    int8_scheme: Annotated[
        Literal["u8s8", "s8s8", "u8u8"], typer.Option(help="Activations and weights of int8.")
    ] = "u8s8",
    reduce_range: Annotated[
        bool | None, typer.Option(help="Weights of 7 bits, for x86 without VNNI; by default where targets have such.")
    ] = None,
    max_loss: Annotated[float, typer.Option(min=0.0, max=1.0, help="Accuracy that int8 may lose.")] = 0.03,
    validation_rows: Annotated[int, typer.Option(min=1, help="Most rows of the validation set in the package.")] = 2000,
    reproducible: Annotated[bool, typer.Option(help="Leave measured latency out of the package.")] = False,
    input_kind: Annotated[
        Literal["numbers", "image", "tokens", "text"] | None,
        typer.Option(help="What insights take the first input for; by default found from its shape, type and name."),
    ] = None,
    processing: Annotated[
        Path | None,
        typer.Option(help="TOML file with what comes before and after the model, to be put into the graph."),
    ] = None,
    fit_temperature: Annotated[
        bool, typer.Option("--fit-temperature", help="Make probabilities mean what they say, on the calibration rows.")
    ] = False,
    min_runtime: Annotated[
        str, typer.Option(help="Oldest ONNX Runtime that shall read the package, as 1.17; or hub: that of its devices.")
    ] = "",
    hub: Annotated[str, typer.Option(help="With --min-runtime hub or --on-device: address of the hub.")] = "",
    channel: Annotated[str, typer.Option(help="With --min-runtime hub: channel that its devices follow.")] = "",
    token: HubToken = "",
    ca_cert: HubCaCert = "",
    tune: Annotated[bool, typer.Option(help="Search for the variants that are best at the objective.")] = False,
    objective: Annotated[
        Literal["latency", "size", "energy"], typer.Option(help="What --tune makes as little as it can.")
    ] = "latency",
    accuracy_drop: Annotated[
        float, typer.Option(min=0.0001, max=1.0, help="Accuracy that a tuned variant may lose, proven on unseen rows.")
    ] = 0.01,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Most recipes that --tune tries for a target.")] = 40,
    time_limit: Annotated[float, typer.Option(min=1.0, help="Seconds after which --tune tries nothing more.")] = 300.0,
    on_device: Annotated[str, typer.Option(help="Device that times what --tune found, and decides; needs --hub.")] = "",
    model_license: Annotated[str, typer.Option("--license", help="The model's licence, as SPDX names it.")] = "",
    data_license: Annotated[str, typer.Option(help="The data's licence, as SPDX names it.")] = "",
    like: Annotated[
        Path | None,
        typer.Option(help="Package whose name, labels, recipe, golden inputs and validation set this one gets."),
    ] = None,
    lineage: Annotated[
        Path | None, typer.Option(help="JSON file with what its lineage shall tell besides: trainer, run, …")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(envvar="MODEL_EXPORT_CACHE", help="Folder of what earlier builds have made.", show_envvar=True),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Make everything anew, and keep nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built; build nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make a package from an ONNX file, a scikit-learn classifier or a PyTorch module."""
    with reporting(as_json):
        from model_export.building.build import build as build_it
        from model_export.building.planning import plan
        from model_export.caching.cache import Cache, default_folder
        from model_export.trust.provenance import Licences
        from model_export.variants.recipes import Int8Options

        if like is not None:
            _nothing_besides(context)
        runtime = _oldest_runtime(hub, channel, token, ca_cert) if min_runtime == "hub" else min_runtime
        if not tune:
            _only_with_tune(context)
        options: dict[str, Any] = {
            "labels": _labels(labels),
            "label_column": label_column or None,
            "precision": tuple(p.strip() for p in precision.split(",")) if precision else None,
            "targets": tuple(t.strip() for t in target.split(",")),
            "name": name or None,
            "version": version,
            "trust_source": trust_source,
            "roles": _roles(role or []),
            "calibration_share": calibration_share,
            "int8": Int8Options(int8_scheme, calibration, reduce_range),
            "max_loss": max_loss,
            "validation_rows": validation_rows,
            "reproducible": reproducible,
            "input_kind": input_kind,
            "processing": processing,
            "fit_temperature": fit_temperature,
            "min_runtime": runtime or None,
            "licences": Licences(model_license, data_license),
            "like": like,
            "lineage": None if lineage is None else _told_lineage(lineage),
            "tune": _tune_options(objective, accuracy_drop, trials, time_limit) if tune else None,
            "cache": Cache(None if no_cache else cache or default_folder()),
        }
        if dry_run:
            _show(plan(source, output, data, **options), as_json)
            return
        with progress(BUILD) as step, ExitStack() as stack:
            if on_device:
                asked = stack.enter_context(hub_at(hub, token, ca_cert))
                options["tune"] = _on_device(options["tune"], asked, on_device, name, step)
            report = build_it(source, output, data, **options, on_step=step)
        if as_json:
            print_json(report.as_dict())
            return
        table = Table("variant", "accuracy", "size", "latency")
        for variant, metrics in report.metrics.items():
            latency = "" if metrics.latency_ms is None else f"{metrics.latency_ms:.3f} ms"
            table.add_row(variant, f"{metrics.accuracy:.4f}", size(metrics.size_bytes), latency)
        out.print(table)
        if report.tuning is not None:
            _print_front(report.tuning)
        for note in report.notes:
            err.print(f"note: {note}", highlight=False, markup=False)
        out.print(f"{report.path}\n{report.digest}", highlight=False, soft_wrap=True, markup=False)


def _tune_options(objective: Objective, accuracy_drop: float, trials: int, time_limit: float) -> TuneOptions:
    from model_export.tuning.options import TuneOptions

    return TuneOptions(objective, accuracy_drop, trials, time_limit)


def _on_device(tune: TuneOptions, hub: Hub, device: str, name: str, step: Callable[[str], None]) -> TuneOptions:
    if not name:
        raise RequestError("the name by which the hub knows the model is not said", "--name NAME")
    from model_export.tuning.elsewhere import on_device

    return dataclasses.replace(tune, elsewhere=on_device(hub, device, step), name=name)


def _print_front(tuning: Mapping[str, Any]) -> None:
    """What a search found: fp32, and the trials that none beats in everything."""
    for name, found in tuning["targets"].items():
        table = Table("recipe", "accuracy", "size", "latency", "of fp32's", "memory", "")
        front = [trial for trial in found["trials"] if trial["front"]]
        for trial in (found["baseline"], *front):
            table.add_row(
                trial["description"],
                "" if trial["accuracy"] is None else f"{trial['accuracy']:.4f}",
                "" if trial["size_bytes"] is None else size(trial["size_bytes"]),
                "" if trial["latency_ms"] is None else f"{trial['latency_ms']:.3f} ms",
                "" if trial["ratio"] is None else f"{trial['ratio']:.0%}",
                "" if trial["memory_bytes"] is None else size(trial["memory_bytes"]),
                "chosen" if trial["recipe"] in tuning["recipes"] else "",
            )
        out.print(table)
        told = f"{name}: {len(found['trials'])} recipes tried, {len(front)} on the front; all are in the tuning file"
        err.print(told, highlight=False, markup=False)


def _only_with_tune(context: typer.Context) -> None:
    for name in ("objective", "accuracy_drop", "trials", "time_limit", "on_device"):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise RequestError(f"--{name.replace('_', '-')} says nothing without --tune", "add --tune, or leave it out")


def _show(found: Plan, as_json: bool) -> None:
    if as_json:
        print_json(found.as_dict())
        return
    data = found.data
    say(f"source: {found.source}")
    say(f"data: {data['file']}, {data['rows']} rows, classes {', '.join(data['classes'])}")
    for name, shape in data["columns"].items():
        say(f"  {name}: {shape}")
    say(f"rows: about {found.calibration} calibrate, {found.validation} validate")
    say(f"variants: {', '.join(found.variants)}")
    for step, state in found.steps.items():
        say(f"{step}: {state}")
    for library in found.missing:
        say(f"missing: {library}")
    say(f"nothing was built; without --dry-run it would be {found.destination}")


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
    own = (
        "source",
        "output",
        "data",
        "version",
        "model_license",
        "data_license",
        "like",
        "lineage",
        "cache",
        "no_cache",
        "dry_run",
        "as_json",
    )
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
    from model_export.graphs.roles import ROLES

    roles = {}
    for pair in pairs:
        name, _, role = pair.rpartition("=")
        if not name or role not in ROLES:
            raise typer.BadParameter(f"--role {pair} is not NAME=ROLE with a role of {', '.join(ROLES)}")
        roles[name] = role
    return roles


def _oldest_runtime(address: str, channel: str, token: str, ca_cert: str) -> str:
    from model_export.graphs.opsets import oldest_in_fleet

    if not address or not channel:
        raise RequestError("whose devices are asked is not said", "give --hub URL and --channel NAME")
    with hub_at(address, token, ca_cert) as hub:
        return oldest_in_fleet(hub, channel)
