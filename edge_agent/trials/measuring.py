"""The candidates of a trial are measured, one after the other while the device is idle, each in its own process."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import replace

from edge_agent.trials.rules import Doing, busy
from edge_agent.trials.told import MOST_REASON
from edge_agent.trials.under_way import Around, Ended, UnderWay
from edge_agent.updates.fetch import Fetched
from edgeloop.package import Package
from edgeloop.protocol.trials import MEASURING, MOST_ROWS, WAITING, TrialRow
from edgeloop.runtime import ModelLoadError, missing_because
from edgeloop.runtime.candidates import Candidate, Rules, candidates
from edgeloop.runtime.fingerprint import take
from edgeloop.runtime.measured import Bounds, Measured, measure_in_child

#: The device has to have been idle for so long before anything is measured, seconds.
IDLE_S = 3.0
#: Between two looks while a trial waits for an idle device, seconds.
LOOK_S = 0.25
#: A candidate is measured anew when the device was needed meanwhile, so often.
MOST_TRIES = 5


def wait_for_rest(trial: UnderWay) -> None:
    """Wait until the device has been idle for `IDLE_S`; the hub says when that has taken too long.

    Raises:
        Dropped: nobody waits for an answer now.
    """
    load, since = _Load(trial.around), time.monotonic()
    while True:
        trial.go_on(LOOK_S)
        if reason := busy(trial.around.rules, load.look()):
            since = time.monotonic()
            trial.tell(WAITING, reason)
        elif time.monotonic() - since >= IDLE_S:
            return


def measure(trial: UnderWay, package: Package, fetched: Fetched) -> tuple[tuple[TrialRow, ...], dict[str, str]]:
    """Measure every candidate that was asked for.

    Args:
        trial: under way.
        package: with the files of the variants that may run here.
        fetched: which those are.

    Returns:
        A row for each, and what the figures are true for.

    Raises:
        Ended: there is nothing to measure.
        Dropped: nobody waits for an answer now.
    """
    request, most_s = trial.request, trial.around.rules.max_s
    rules = trial.around.settings().tests.for_providers()
    asked = request.variants or tuple(package.variants)
    if unknown := set(asked) - set(package.variants):
        raise Ended(f"there is no variant {min(unknown)!r}; there are {', '.join(package.variants)}")
    here = [name for name in asked if name in fetched.variants]
    rows = [_absent(package, name) for name in asked if name not in here]
    try:
        found = candidates(package, rules, here) if here else []
    except ModelLoadError as error:
        raise Ended(str(error)) from error
    if not found:
        raise Ended("; ".join(dict.fromkeys(row.reason for row in rows)) or "there is nothing to measure")
    found = found[: MOST_ROWS - len(rows)]
    end = time.monotonic() + most_s
    for number, candidate in enumerate(found):
        left = end - time.monotonic()
        # What one does not use is there for the others.
        seconds = left / (len(found) - number)
        what = f"{candidate.variant} on {candidate.provider}, {candidate.threads} threads"
        if left < 1.0:
            measured = Measured(f"no time was left of {most_s:g} s (trials_max_s)")
        else:
            trial.tell(MEASURING, f"{what}: {number + 1} of {len(found)}")
            measured = _one(trial, package, candidate, seconds)
        rows.append(_row(candidate, measured))
    return tuple(rows), _facts(rules)


def _one(trial: UnderWay, package: Package, candidate: Candidate, seconds: float) -> Measured:
    """Measure one candidate while the device is idle; again when it was needed meanwhile."""
    around = trial.around
    launch = around.settings().tests.for_providers().launch(candidate.provider, candidate.threads, None)
    bounds = Bounds(trial.request.calls, seconds, around.rules.max_memory_bytes)
    disturbed = ""
    for _ in range(MOST_TRIES):
        load = _Load(around)
        interruptions: list[str] = []

        def stop(load: _Load = load, interruptions: list[str] = interruptions) -> str:
            if trial.unwanted(0.0):
                return "it is not wanted any more"
            if reason := busy(around.rules, load.look()):
                interruptions.append(reason)
            return reason

        measured = measure_in_child(package, candidate.variant, launch, bounds, stop)
        trial.go_on()
        if not interruptions:
            return measured
        disturbed = interruptions[0]
        trial.tell(WAITING, f"the device was needed meanwhile: {disturbed}")
        wait_for_rest(trial)
    return Measured(f"the device was not idle for long enough, in {MOST_TRIES} tries: {disturbed}")


class _Load:
    """Rows a second that the agent answers, over the last seconds."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), around.answered())])

    def look(self) -> Doing:
        now, answered = time.monotonic(), self._around.answered()
        if answered < self._seen[-1][1]:  # another release serves, and counts from 0
            self._seen.clear()
        self._seen.append((now, answered))
        while len(self._seen) > 2 and now - self._seen[1][0] >= IDLE_S:
            self._seen.popleft()
        first = self._seen[0]
        # Over a whole span: two requests at once on a device that waits are no load.
        return replace(self._around.doing(), rows_per_s=(answered - first[1]) / max(IDLE_S, now - first[0]))


def _absent(package: Package, variant: str) -> TrialRow:
    """A variant whose files were not fetched, since nothing here may run it."""
    provider = package.variants[variant].ep
    return TrialRow(variant, provider, reason=missing_because(provider)[:MOST_REASON])


def _row(candidate: Candidate, found: Measured) -> TrialRow:
    return TrialRow(
        variant=candidate.variant,
        provider=candidate.provider,
        threads=candidate.threads,
        median_us=found.median_us,
        p95_us=found.p95_us,
        calls=found.calls,
        load_us=found.load_us,
        memory_bytes=found.memory_bytes,
        golden_cases=found.golden_cases,
        golden_ok=found.golden_ok,
        reason=found.reason[:MOST_REASON],
    )


def _facts(rules: Rules) -> dict[str, str]:
    """What the figures are true for. Of the owner's settings only the policy: options of providers may name paths."""
    found = dict(take({}).facts) | {"settings": f"policy {rules.policy}"}
    if hasattr(os, "getloadavg"):
        found["load"] = f"{os.getloadavg()[0]:.2f}"
    return {name: value[:1000] for name, value in found.items()}
