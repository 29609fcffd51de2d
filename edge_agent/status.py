"""``edge-agent status``: ask the running agent where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from rich.table import Table

from edge_agent.settings import Settings


class NoAgent(Exception):
    """No agent answers; the message says what to do."""


def ask(settings: Settings) -> dict[str, Any]:
    """The status document of the agent that these settings start.

    Raises:
        NoAgent: nobody answers at its address, or somebody else does.
    """
    address = settings.own_url
    try:
        # A proxy is for the way to the hub.
        answer = httpx.get(f"{address}/edgeloop/v1/status", timeout=5.0, trust_env=False)
        return dict(answer.raise_for_status().json())
    except (httpx.HTTPError, ValueError, TypeError) as error:
        raise NoAgent(
            f"no agent answers at {address} ({error}); start it with `edge-agent run`, or see its log"
        ) from error


def table(status: Mapping[str, Any]) -> Table:
    """The status for people."""
    found = Table(show_header=False)
    update, ledger, messaging = status["update"], status["ledger"], status["messaging"]
    connected = f"connected to {messaging['broker']}" if messaging["connected"] else f"away: {messaging['last_error']}"
    serves = f"{status['release_name']} as {status['variant']} on {status['provider']}"
    counted = f"{ledger['predictions']:,} predictions, {ledger['feedback']:,} labels, {ledger['errors']:,} errors"
    for key, value in (
        ("device", status["device"]),
        ("serves", serves if status["serving"] else "nothing"),
        ("release", status["release"] or ""),
        ("update", f"{update['state']}: {update['reason']}"),
        ("channel", f"{messaging['channel']}, serial {messaging['serial']}"),
        ("broker", connected),
        ("counted", counted),
        ("outbox", f"{status['outbox']['windows']} windows, {status['outbox']['bytes']:,} bytes"),
        ("insights", _insights(status["insights"], status["outbox"]["unsent"])),
        ("restarts", f"{status['unclean_restarts']} unclean"),
    ):
        found.add_row(key, str(value))
    if (samples := status["samples"])["on"] or samples["trouble"]:
        found.add_row("samples", _samples(samples))
    if (privacy := status["privacy"])["epsilon"]:
        found.add_row("privacy", _noise(privacy))
    if status["accuracy"] is not None:
        found.add_row("accuracy", accuracy_line(status["accuracy"]))
    if status["providers"]["trouble"]:
        found.add_row("provider", status["providers"]["trouble"])
    if status["clock"]:
        found.add_row("clock", status["clock"])
    for alarm in status["alarms"]:
        found.add_row("drift", f"{alarm['moved']}; {alarm['suggestion']}")
    if status["trust"]["trouble"]:
        found.add_row("not trusted", status["trust"]["trouble"])
    if status["strain"]:
        found.add_row("holds back", status["strain"])
    for source in status["sources"]:
        counts = source["counts"]
        seen = f"{counts['answered']:,} answered, {counts['rejected']:,} rejected, {counts['dropped']:,} dropped"
        found.add_row(f"source {source['name']}", f"{source['state']}; {seen}")
    for sink in status["sinks"]:
        counts = sink["counts"]
        seen = f"{counts['delivered']:,} delivered, {counts['waiting']:,} waiting"
        found.add_row(f"sink {sink['name']}", f"{sink['trouble'] or 'delivers'}; {seen}")
    if status["trouble"]:
        found.add_row("trouble", status["trouble"])
    return found


def _insights(insights: Mapping[str, Any], unsent: int) -> str:
    budget = insights["bytes_per_day"]
    parts = [f"{insights['bytes_today']:,} bytes today" + (f" of {budget:,}" if budget else "")]
    if insights["gives_up"]:
        parts.append(f"no room for all of it: {insights['gives_up']}")
    if insights["replaying"]:
        parts.append(f"a backlog of {unsent:,} windows leaves")
    return "; ".join(parts)


def _samples(samples: Mapping[str, Any]) -> str:
    kept = f"{samples['kept']:,} kept, {samples['acknowledged']:,} at the hub, {samples['waiting']:,} waiting"
    return f"{kept}: {samples['trouble']}" if samples["trouble"] else kept


def _noise(privacy: Mapping[str, Any]) -> str:
    """How much noise there is, and what it has cost."""
    if privacy["trouble"]:
        return f"nothing but volumes leaves: {privacy['trouble']}"
    said = f"epsilon {privacy['epsilon']:g} and delta {privacy['delta']:g} in {privacy['days']:g} days"
    left = "" if privacy["left"] is None else f"; {privacy['left']:,} windows left"
    withheld = f"; {privacy['withheld']:,} left as volumes alone" if privacy["withheld"] else ""
    return said + left + withheld


def accuracy_line(found: Mapping[str, Any]) -> str:
    """The device's own figures of about the last hour."""
    estimate, audits, labels = found["estimate"], found["audits"], found["labels"]
    said = [f"{_share(estimate['expected'])} expected" if estimate["expected"] else "no estimate"]
    if not estimate["trusted"]:
        said.append(f"not to be trusted: {estimate['reason']}")
    if audits["drawn"] or audits["labelled"]:
        share = f"{_share(audits['accuracy'])} by " if audits["accuracy"] else ""
        said.append(f"{share}{audits['labelled']:,} of {audits['drawn']:,} audits")
    if labels["plain"]:
        said.append(f"{_share(labels['plain'])} of {labels['plain']['rows']:,} chosen labels")
    return "; ".join(said)


def _share(share: Mapping[str, Any]) -> str:
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"
