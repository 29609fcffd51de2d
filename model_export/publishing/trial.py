"""Measuring the variants of a package on a real device that follows a hub: sent, asked for, waited for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from edgeloop.package import Package, PackageError, required_paths
from edgeloop.protocol import ProtocolError, TrialReport
from edgeloop.protocol.trials import DONE, TrialRow
from model_export.errors import DeviceTrialError, ExportError, HubUnreachableError, RequestError
from model_export.hub import Hub
from model_export.publishing.sending import API, send_missing

#: Seconds between two looks at a trial: short at first, for a device that is idle, then longer.
LOOKS_S = (0.2, 2.0)
#: The hub ends a trial by itself; whoever waits for it waits a little longer.
GRACE_S = 30.0


def measure_on_device(
    package: Package,
    hub: Hub,
    device: str,
    *,
    variants: Sequence[str] = (),
    calls: int = 200,
    patience_s: float = 900.0,
    on_step: Callable[[str], None] = lambda text: None,
) -> TrialReport:
    """Have a device measure the variants of a package in the runtime that would serve them.

    The package becomes no release and nothing of it serves. Its validation set is not sent.

    Args:
        package: audited.
        hub: that the device follows; whoever asks has to be a publisher of the model there.
        device: its name.
        variants: that are measured; empty: all that the device may run.
        calls: runs of one row that are timed of each candidate, at most.
        patience_s: seconds until the device has to have answered.
        on_step: told what goes on.

    Returns:
        The device's answer: a row for each variant, provider and number of threads that it would consider.

    Raises:
        RequestError: there is no such variant.
        HubUnreachableError: nobody answered, or no hub.
        HubRefusedError: the hub said no; the message carries its reason.
        DeviceTrialError: the device refused, found the package wrong, or did not answer in time.
    """
    try:
        needed = required_paths(package.manifest, package.index, list(variants) or None)
    except PackageError as error:
        raise RequestError(str(error), "model-export inspect shows the variants") from error
    sent = send_missing(hub, package, needed)
    index = package.index.to_bytes()
    headers = {"Content-Type": "application/octet-stream"}
    hub.send("PUT", f"{API}/blobs/{hashlib.sha256(index).hexdigest()}", lambda: {"content": index, "headers": headers})
    on_step(f"{len(sent)} files sent to the hub; {device} is asked")
    asked = {"device": device, "digest": package.digest, "variants": list(variants), "calls": calls}
    trial = hub.ask("POST", f"{API}/trials", json=asked | {"seconds": patience_s})
    path = f"{API}/trials/{quote(str(trial['id']), safe='')}"
    try:
        trial = _wait(hub, path, trial, patience_s, on_step)
    except BaseException:
        with suppress(ExportError):  # nobody waits any more: the device need not measure on
            hub.ask("POST", f"{path}/cancel", json={"reason": "whoever asked has gone"})
        raise
    return _report(trial)


def best_rows(report: TrialReport) -> dict[str, TrialRow]:
    """Variant → its fastest row of those that are good; a variant without one is not there."""
    best: dict[str, TrialRow] = {}
    for row in report.rows:
        if not row.reason and (row.variant not in best or row.median_us < best[row.variant].median_us):
            best[row.variant] = row
    return best


def _wait(
    hub: Hub, path: str, trial: dict[str, Any], patience_s: float, on_step: Callable[[str], None]
) -> dict[str, Any]:
    end, said, pause = time.monotonic() + patience_s + GRACE_S, "", LOOKS_S[0]
    while trial.get("ended") is None:
        if time.monotonic() > end:
            raise DeviceTrialError(f"the hub did not end the trial in {patience_s:g} s", "look at the hub's log")
        if (now := str(trial.get("reason", ""))) != said:
            said = now
            on_step(f"{trial['device']}: {said}")
        time.sleep(pause)
        pause = min(LOOKS_S[1], pause * 1.2)
        try:
            trial = hub.ask("GET", path)
        except HubUnreachableError as error:  # it may be restarted meanwhile: it remembers the trial
            on_step(str(error))
    return trial


def _report(trial: dict[str, Any]) -> TrialReport:
    state, reason = str(trial.get("state")), str(trial.get("reason"))
    if state != DONE:
        hint = {
            "refused": "its owner allows trials with trials = true in the device's settings"
            if "does not allow" in reason
            else "",
            "expired": "see whether the device is online (GET /api/v1/devices/NAME), or wait longer with --patience",
        }.get(state, "")
        raise DeviceTrialError(f"the trial on {trial.get('device')} was {state}: {reason}", hint)
    try:
        return TrialReport.from_wire(trial.get("report"))
    except ProtocolError as error:
        raise DeviceTrialError(f"the hub's answer about the trial cannot be read: {error}", "update the hub") from error
