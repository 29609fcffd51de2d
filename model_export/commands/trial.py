"""``model-export trial``: what the variants of a package cost on a real device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    size,
)

if TYPE_CHECKING:
    from edgeloop.protocol import TrialReport


def trial(
    package: Annotated[Path, typer.Argument(help="The package's folder.")],
    hub: Annotated[str, typer.Option(help="Address of the hub: https://host:port")],
    device: Annotated[str, typer.Option(help="Device that follows it; its owner has to allow trials.")],
    variants: Annotated[str, typer.Option(help="Variants to measure, separated by commas; by default all.")] = "",
    calls: Annotated[int, typer.Option(min=1, max=100_000, help="Runs that are timed of each, at most.")] = 200,
    patience: Annotated[
        float, typer.Option(min=10.0, max=7 * 86400.0, help="Seconds until the device has to have answered.")
    ] = 900.0,
    token: HubToken = "",
    ca_cert: HubCaCert = "",
    as_json: Json = False,
) -> None:
    """Measure a package's variants on a device, when it is idle; nothing of the package serves there."""
    with reporting(as_json):
        from model_export.publishing.trial import measure_on_device
        from model_export.reading.audited import open_audited

        with progress() as step, hub_at(hub, token, ca_cert) as opened:
            step("auditing")
            report = measure_on_device(
                open_audited(package),
                opened,
                device,
                variants=tuple(name.strip() for name in variants.split(",") if name.strip()),
                calls=calls,
                patience_s=patience,
                on_step=step,
            )
        if as_json:
            print_json({"device": device, **report.to_wire()})
            return
        out.print(table_of(report))
        for name in ("hardware", "onnxruntime", "load"):
            if name in report.facts:
                err.print(f"{name}: {report.facts[name]}", highlight=False, markup=False)


def table_of(report: TrialReport) -> Table:
    """A device's answer for people."""
    from model_export.publishing.trial import best_rows

    best = best_rows(report).values()
    table = Table("variant", "provider", "threads", "median", "95 %", "calls", "load", "memory", "golden", "result")
    for row in report.rows:
        table.add_row(
            row.variant,
            row.provider.removesuffix("ExecutionProvider"),
            str(row.threads),
            *((_time(value) if row.calls else "") for value in (row.median_us, row.p95_us)),
            str(row.calls),
            _time(row.load_us) if row.load_us else "",
            size(row.memory_bytes) if row.memory_bytes else "",
            f"{row.golden_ok}/{row.golden_cases}" if row.golden_cases else "",
            row.reason or ("fastest of the variant" if row in best else "ok"),
        )
    return table


def _time(us: float) -> str:
    return f"{us:.0f} µs" if us < 1e3 else f"{us / 1e3:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"
