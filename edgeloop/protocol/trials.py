"""Trials: candidates of a model that a device measures for a person, and never serves.

A trial is asked for in the device's ``desired`` document, which the fleet signs, and answered in its ``reported`` one:
both are retained, so neither a lost message nor a restart loses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated

from edgeloop.protocol.fields import COUNT, DIGEST, NAME, Integer, ListOf, MapOf, Real, Text
from edgeloop.protocol.parts import Part, PartOf
from edgeloop.records import dataclass

#: What a trial waits for, or does.
WAITING, FETCHING, CHECKING, MEASURING = "waiting", "fetching", "checking", "measuring"
#: What has become of it.
DONE, REFUSED = "done", "refused"
ENDED = frozenset({DONE, REFUSED})
#: Rows of a report: a package has at most 64 variants, and a device few providers and numbers of threads.
MOST_ROWS = 128


@dataclass(frozen=True)
class TrialRequest(Part):
    """Candidates that a device is asked to measure.

    Attributes:
        id: of the trial.
        digest: ``sha256:…`` of the package's index, which the hub has as a blob: it is no release, and need not be one.
        name: the package's name.
        index_size: bytes of the index; the device reads no more.
        variants: that are measured; empty: all that the device may run.
        calls: runs of one row that are timed of each candidate, at most.
    """

    id: Annotated[str, Text(64)]
    digest: Annotated[str, DIGEST]
    name: Annotated[str, Text(128)]
    index_size: Annotated[int, Integer(1, 4 << 20)]
    variants: Annotated[tuple[str, ...], ListOf(NAME, 64)] = ()
    calls: Annotated[int, Integer(1, 100_000)] = 200


@dataclass(frozen=True)
class TrialRow(Part):
    """What one candidate did on the device: a variant on a provider with a number of threads.

    Attributes:
        variant: of the package.
        provider: execution provider by ONNX Runtime's name.
        threads: for one run.
        median_us: median time of one row, microseconds; 0 where nothing was timed.
        p95_us: time that 95 % of the runs keep, microseconds.
        calls: runs that were timed.
        load_us: until the session was there, microseconds.
        memory_bytes: by which a process grew at most when it loaded and ran the candidate; 0: unknown.
        golden_cases: cases that were run.
        golden_ok: of them, those whose decision is the reference's.
        reason: why the candidate is no good; "" when it is.
    """

    variant: Annotated[str, Text(64)]
    provider: Annotated[str, Text(128)]
    threads: Annotated[int, COUNT] = 0
    median_us: Annotated[float, Real(0.0, 1e12)] = 0.0
    p95_us: Annotated[float, Real(0.0, 1e12)] = 0.0
    calls: Annotated[int, COUNT] = 0
    load_us: Annotated[float, Real(0.0, 1e12)] = 0.0
    memory_bytes: Annotated[int, COUNT] = 0
    golden_cases: Annotated[int, COUNT] = 0
    golden_ok: Annotated[int, COUNT] = 0
    reason: Annotated[str, Text(300)] = ""


@dataclass(frozen=True)
class TrialReport(Part):
    """Where a trial stands on the device.

    Attributes:
        id: of the trial.
        state: waiting, fetching, checking, measuring; done, refused. A hub keeps one that it does not know.
        reason: why, or what is going on: a sentence for people.
        rows: the candidates, once it is done.
        facts: of the device: hardware, processors, drivers, onnxruntime, and what else the figures are true for.
    """

    id: Annotated[str, Text(64)]
    state: Annotated[str, Text(16)]
    reason: Annotated[str, Text(2000)] = ""
    rows: Annotated[tuple[TrialRow, ...], ListOf(PartOf(TrialRow), MOST_ROWS)] = ()
    facts: Annotated[Mapping[str, str], MapOf(Text(1000), 32)] = field(default_factory=dict)
