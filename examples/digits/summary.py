"""The figures of a run, the bounds that they are held to, and the table at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Check:
    """One bound: what it is about, the measured figure, the bound as text, and whether it holds."""

    what: str
    measured: str
    bound: str
    holds: bool


@dataclass
class Figures:
    """What a run measured; the keys of the JSON summary. Accuracies are shares in 0…1, sizes are bytes."""

    accuracy: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    totals: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    labels_before_alarm: int = 0
    failed_requests: int = 0
    exit_statuses: dict[str, int] = field(default_factory=dict)
    lineage: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    #: What the time is to be read with.
    note: ClassVar[str] = "of which the reference that retrains everything is a part that no fleet would pay"

    def checks(self) -> list[Check]:
        """Every bound that the demo promises; the demo fails when one does not hold."""
        a, b = self.accuracy, self.bytes
        gap = a["full_retrain"] - a["recovered"]
        update_share = b["update"] / b["package"]
        return [
            least("accuracy, clean digits", a["clean"], 0.93),
            most("accuracy, after the slip", a["drifted"], 0.65),
            least("accuracy, recovered", a["recovered"], 0.80),
            most("behind retraining with all raw data", gap, 0.04),
            least("second recovery over second slip", a["second_recovered"] - a["second_drifted"], 0.10),
            most("update, share of the package's bytes", update_share, 0.15),
            same("labels before the first alarm", self.labels_before_alarm, 0),
            same("inputs found in MQTT's bytes", b["inputs_uploaded"], 0),
            same("requests that failed", self.failed_requests, 0),
            same("releases in the lineage of the last", 1 + self.lineage.splitlines().count("made of"), 3),
            same("programs that did not end in order", sum(map(bool, self.exit_statuses.values())), 0),
            Check(
                "hub's totals",
                f"{self.totals['hub']['predictions']} predictions",
                f"= devices' {self.totals['devices']['predictions']}, count by count",
                self.totals["hub"] == self.totals["devices"],
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """The summary as `make demo JSON=FILE` writes it."""
        return {
            "accuracy": {key: round(value, 4) for key, value in self.accuracy.items()},
            "bytes": self.bytes,
            "totals": self.totals,
            "seconds": round(self.seconds, 1),
            "labels_before_alarm": self.labels_before_alarm,
            "failed_requests": self.failed_requests,
            "exit_statuses": self.exit_statuses,
            **self.more,
            "checks": [vars(check) for check in self.checks()],
            "ok": all(check.holds for check in self.checks()),
        }

    def write(self, path: Path) -> None:
        """Write the JSON summary."""
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")

    def show(self) -> bool:
        """Print the table; returns whether every bound holds."""
        console = Console()
        # Each line whole: whoever reads it from a file searches for digests.
        console.print(
            f"where the last release comes from:\n{self.lineage}", highlight=False, markup=False, soft_wrap=True
        )
        table = Table(title="The loop in figures")
        for title in ("what", "measured", "bound", ""):
            table.add_column(title)
        for check in self.checks():
            table.add_row(check.what, check.measured, check.bound, "ok" if check.holds else "[red]DOES NOT HOLD[/red]")
        console.print(table)
        console.print(
            f"accuracy: {_line(self.accuracy)}\nbytes: {_line(self.bytes)}\n{self.seconds:.0f} s in all, {self.note}"
        )
        return all(check.holds for check in self.checks())


def _line(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value:,}" for key, value in values.items()
    )


def least(what: str, measured: float, bound: float) -> Check:
    """A figure that must not be below its bound."""
    return Check(what, f"{measured:.3f}", f"≥ {bound:.2f}", measured >= bound)


def most(what: str, measured: float, bound: float) -> Check:
    """A figure that must not be above its bound."""
    return Check(what, f"{measured:.3f}", f"≤ {bound:.2f}", measured <= bound)


def same(what: str, measured: int, bound: int) -> Check:
    """A number that must be exactly this."""
    return Check(what, str(measured), f"= {bound}", measured == bound)
