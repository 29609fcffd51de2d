"""Prometheus' text exposition format, as much of it as the agent's plain numbers need.

https://prometheus.io/docs/instrumenting/exposition_formats/. The client library keeps state of its own and was measured
at 4 MB in a process whose counts live elsewhere anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from edgeloop.records import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "edge_agent_"


@dataclass(frozen=True)
class Metric:
    """One number: its name without the prefix, what it means, its value, and its labels.

    A name that ends in ``_total`` is a counter, any other a gauge.
    """

    name: str
    text: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def exposition(metrics: Iterable[Metric]) -> bytes:
    """The text that Prometheus reads; metrics of one name follow one another."""
    lines: list[str] = []
    last = ""
    for metric in metrics:
        name = PREFIX + metric.name
        if name != last:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {_escaped(metric.text)}", f"# TYPE {name} {kind}"]
            last = name
        labels = ",".join(f'{label}="{_escaped(value, quotes=True)}"' for label, value in metric.labels.items())
        lines.append(f"{name}{f'{{{labels}}}' if labels else ''} {float(metric.value)!r}")
    return "".join(f"{line}\n" for line in lines).encode()


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
