"""``edge-agent doctor``: what is wrong with this device, and how to mend it. Each check is one function."""

from __future__ import annotations

import importlib.metadata
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import httpx

from edge_agent.identity import IdentityError, load, tls_context
from edge_agent.settings import Settings
from edge_agent.status import NoAgent, ask
from edge_agent.updates.providers import tables, unusable_because
from edgeloop.runtime import available_providers, runtime_version

#: This software was written after it: an earlier clock is wrong (2026-01-01).
EARLIEST = 1_767_225_600.0
#: Wheels of onnxruntime that install the same module and overwrite one another.
WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-directml",
    "onnxruntime-training",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-silicon",
)
Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What one check found: its name, how bad it is, what it saw, and how to mend it."""

    check: str
    level: Level
    found: str
    mend: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Run every check; none of them changes anything."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _providers,
        _tables,
        _wheels,
        _data,
        _clock,
        _identity,
        _broker,
        _hub,
        _sources,
        _agent,
    )
    return [finding for check in checks for finding in check(settings)]


def _providers(settings: Settings) -> Iterator[Finding]:
    there = available_providers()
    text = f"onnxruntime {runtime_version()} with {', '.join(there)}"
    yield Finding("providers", "ok", text if len(there) > 1 else f"{text} alone")
    reasons = {name: unusable_because(settings, name) for name in settings.required_providers}
    hopeless = all(reasons.values())
    for name, reason in reasons.items():
        if not reason:
            yield Finding("required provider", "ok", f"{name} runs what this device has")
        else:
            yield Finding(
                "required provider",
                "error" if hopeless else "warning",
                reason if name in reason else f"{name}: {reason}",
                "mend that, or change required_providers; until then no release is activated, and the committed one "
                "goes on as it did"
                if hopeless
                else "another required provider is used meanwhile",
            )


def _tables(settings: Settings) -> Iterator[Finding]:
    for known in tables(settings):
        when = f"{known['release'][:19]}… was measured at {known['measured']}"
        if known["changed"]:
            yield Finding(
                "measurements",
                "warning",
                f"{when}; since then: {known['changed']}",
                "start the agent: it measures again by itself",
            )
        else:
            yield Finding("measurements", "ok", f"{when}; {known['note'] or 'nothing has changed since'}")


def _wheels(settings: Settings) -> Iterator[Finding]:
    installed = [name for name in WHEELS if _version(name)]
    if len(installed) > 1:
        yield Finding(
            "onnxruntime wheels",
            "error",
            f"{' and '.join(installed)} are installed and overwrite one another; {runtime_version()} is what is left, "
            f"with {', '.join(available_providers())}",
            f"pip uninstall -y {' '.join(installed)}, then install the one that you need",
        )
    else:
        found = ", ".join(f"{name} {_version(name)}" for name in installed)
        yield Finding("onnxruntime wheels", "ok", found or f"none: onnxruntime {runtime_version()} was built here")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _data(settings: Settings) -> Iterator[Finding]:
    folder = settings.data
    while not folder.exists():
        folder = folder.parent.absolute() if folder.parent == folder else folder.parent
    try:
        probe = folder / f".doctor-{time.monotonic_ns()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        yield Finding(
            "data folder", "error", f"{folder} cannot be written: {error.strerror}", "set data to a folder that can be"
        )
        return
    free = shutil.disk_usage(folder).free
    if free < 2 * settings.disk_reserve_bytes:
        yield Finding(
            "disk",
            "warning",
            f"{free:,} bytes are free; {settings.disk_reserve_bytes:,} are kept free by updates",
            "make room, or no release can be fetched; counting goes on in the outbox as long as it can",
        )
    else:
        yield Finding("disk", "ok", f"{free:,} bytes are free at {settings.data}")


def _clock(settings: Settings) -> Iterator[Finding]:
    now = time.time()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < EARLIEST:
        yield Finding(
            "clock",
            "error",
            f"it is {text} here, which cannot be",
            "set the clock (NTP, or a battery for the real-time clock); the agent works, counts and updates meanwhile, "
            "and only the times of its windows are wrong",
        )
    else:
        yield Finding("clock", "ok", text)


def _identity(settings: Settings) -> Iterator[Finding]:
    if settings.insecure:
        yield Finding("identity", "ok", "insecure: for development on one machine, nobody is asked who they are")
        return
    mend = "cloud-hub enrolment create on the hub's machine, then edge-agent enrol --hub https://… --token … here"
    try:
        identity = load(settings.data)
    except IdentityError as error:
        yield Finding("identity", "error", str(error), mend)
        return
    if identity is None:
        yield Finding("identity", "error", "this device is not enrolled", mend)
        return
    until = time.strftime("%Y-%m-%d", time.gmtime(identity.ends))
    text = f"{identity.device} of the fleet {identity.fleet}, until {until}"
    if time.time() > identity.ends:
        yield Finding(
            "identity",
            "error",
            f"{text}: that is over, by the clock here",
            "see whether the clock is right; if it is, start the agent: it exchanges the certificate, or says why not",
        )
    else:
        yield Finding("identity", "ok", text)


def _broker(settings: Settings) -> Iterator[Finding]:
    address = f"{settings.broker_host}:{settings.broker_port}"
    try:
        with socket.create_connection((settings.broker_host, settings.broker_port), timeout=5.0):
            yield Finding("broker", "ok", f"{address} takes connections")
    except OSError as error:
        yield Finding(
            "broker",
            "error",
            f"{address} cannot be reached: {error.strerror or error}",
            "start the hub (it brings a broker), or set broker_host and broker_port; windows wait in the outbox",
        )


def _hub(settings: Settings) -> Iterator[Finding]:
    try:
        identity = None if settings.insecure else load(settings.data)
        trust = ssl.create_default_context() if identity is None else tls_context(identity)
        answer = httpx.get(f"{settings.hub}/healthz", timeout=5.0, verify=trust).raise_for_status()
        date = answer.headers.get("date")
        yield Finding("hub", "ok", f"{settings.hub} answers{f', its clock says {date}' if date else ''}")
    except (httpx.HTTPError, httpx.InvalidURL, IdentityError) as error:
        yield Finding(
            "hub",
            "error",
            f"{settings.hub} cannot be reached: {error}",
            "start it with `cloud-hub serve`, or set hub to its address; the committed release serves meanwhile",
        )


def _sources(settings: Settings) -> Iterator[Finding]:
    if not settings.sources:
        return
    from edge_agent.flow_settings import library

    for source in settings.sources:
        needs = library(source)
        if needs is not None and find_spec(needs[0]) is None:
            mend = f"pip install 'edgeloop[{needs[1]}]'"
            yield Finding("source", "error", f"{source.name} needs {needs[0]}, which is not installed", mend)
        else:
            yield Finding("source", "ok", f"{source.name} gives its results to {', '.join(source.sinks)}")


def _agent(settings: Settings) -> Iterator[Finding]:
    try:
        status = ask(settings)
    except NoAgent as error:
        yield Finding("agent", "warning", str(error))
        return
    update = status["update"]
    if status["serving"] is None or update["state"] == "rolled_back":
        level: Level = "error" if status["serving"] is None else "warning"
        serves = status["release_name"] or "nothing"
        mend = "mend what the reason says, then publish the release again: a refused offer is not tried twice"
        yield Finding("agent", level, f"it serves {serves}; {update['state']}: {update['reason']}", mend)
    else:
        yield Finding("agent", "ok", f"it serves {status['release_name']} on {status['provider']}")
    if status["providers"]["trouble"]:
        yield Finding(
            "agent's provider",
            "error",
            status["providers"]["trouble"],
            "mend it, then restart the agent: it measures again",
        )
    if status["trust"]["trouble"]:
        yield Finding(
            "agent's trust",
            "warning",
            status["trust"]["trouble"],
            "what serves goes on; docs/explanations/updates.md says what each reason means and who can mend it",
        )
    if status["trouble"]:
        yield Finding(
            "outbox", "error", status["trouble"], "make room on the disk; while the agent runs nothing is lost"
        )
