"""A trial from the hub's wish to the device's answer: a thread that lives only while one is wanted.

Each step may end it with a reason, which is the answer. What came of a trial is kept: one that was begun is never begun
again by a later life of the agent, since it may have been what ended the life before.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from edge_agent.logs import Log
from edge_agent.observing.store import Store, StoreError
from edge_agent.ports import Vouched
from edge_agent.trials.files import TrialFiles, remove
from edge_agent.trials.rules import Doing, TrialRules, busy
from edge_agent.updates.errors import Transient, UpdateError
from edge_agent.updates.fetch import Fetched, Fetcher, FetchLimits
from edge_agent.updates.rules import Offer
from edge_agent.updates.settings import UpdateSettings
from edge_agent.updates.space import shortage
from edgeloop.package import Package, PackageError, audit_in_child
from edgeloop.protocol import ProtocolError, TrialReport, TrialRequest, decode, encode
from edgeloop.protocol.trials import CHECKING, DONE, ENDED, FETCHING, MEASURING, MOST_ROWS, REFUSED, WAITING, TrialRow
from edgeloop.runtime import ModelLoadError, missing_because, usable_providers
from edgeloop.runtime.candidates import Candidate, Rules, candidates
from edgeloop.runtime.fingerprint import take
from edgeloop.runtime.measured import Bounds, Measured, measure_in_child

log = Log(__name__)

#: The device has to have been idle for so long before anything is measured, seconds.
IDLE_S = 3.0
#: Between two looks while a trial waits for an idle device, seconds.
LOOK_S = 0.25
#: A candidate is measured anew when the device was needed meanwhile, so often.
MOST_TRIES = 5
#: Between two tries to fetch, seconds; a hub that cannot be reached is asked so often.
FETCH_PAUSE_S, MOST_FETCHES = 5.0, 6
#: Where the answer is kept in the agent's records.
NOTE = "trial"
MOST_REASON = 300


class Around(NamedTuple):
    """What a trial needs of the agent.

    Attributes:
        settings: the owner's, for updates.
        rules: the owner's, for trials.
        doing: what the device does now; ``rows_per_s`` is left at 0.
        answered: rows that the agent has answered so far, all models together; it may begin anew.
        hub: base URL of the hub now, or "".
        report: have the hub told soon.
    """

    settings: Callable[[], UpdateSettings]
    rules: TrialRules
    doing: Callable[[], Doing]
    answered: Callable[[], int]
    hub: Callable[[], str]
    report: Callable[[], None]


class _Ended(Exception):
    """The trial ends here; the message is its answer."""


class _Dropped(Exception):
    """Nobody waits for an answer now: the hub wants none any more, or the agent stops."""


class Trials:
    """Takes what the hub wants measured, one at a time.

    Args:
        store: the agent's records.
        around: the agent.
    """

    def __init__(self, store: Store, around: Around) -> None:
        self._store, self._around = store, around
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted: TrialRequest | None = None
        self._report = self._kept()
        self._stopping = threading.Event()

    def follow(self, request: TrialRequest | None) -> None:
        """Take the hub's wish, or that it has none any more; returns at once."""
        with self._lock:
            if request == self._wanted:
                return
            self._wanted = request
            if request is not None and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
                self._thread.start()

    def report(self) -> TrialReport | None:
        """Where the trial stands that the hub asks for, or None when it asks for none."""
        with self._lock:
            wanted, report = self._wanted, self._report
        if wanted is None:
            return None
        return report if report is not None and report.id == wanted.id else TrialReport(wanted.id, WAITING)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End what is under way; it is not begun again."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    # ── the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        """One trial after another, until none is wanted that has no answer yet."""
        while (request := self._next()) is not None:
            known = self._report
            if known is not None and known.id == request.id and known.state in (CHECKING, MEASURING):
                self._end(request, REFUSED, f"the agent was ended while it was {known.state}; ask for another trial")
                continue
            try:
                self._try(request)
            except _Dropped:
                if self._stopping.is_set():  # in order: the next life may begin it anew
                    self._tell(request, WAITING, "the agent stops")
            except _Ended as ended:
                self._end(request, REFUSED, str(ended))
            except Exception as error:  # a fault of ours is told like any other reason
                log.exception("a trial failed for a reason of our own", trial=request.id)
                self._end(request, REFUSED, f"a fault of the agent: {type(error).__name__}: {error}")
            finally:
                with suppress(OSError):
                    remove(self._around.settings().data)

    def _next(self) -> TrialRequest | None:
        """What is to be done now; None also ends the thread, under the lock that `follow` starts it under."""
        with self._lock:
            wanted, report = self._wanted, self._report
            answered = wanted is not None and report is not None and report.id == wanted.id and report.state in ENDED
            if wanted is None or answered or self._stopping.is_set():
                self._thread = None
                return None
            return wanted

    def _try(self, request: TrialRequest) -> None:
        self._tell(request, WAITING, "waiting until the device is idle")
        self._wait_for_rest(request)
        self._tell(request, FETCHING, f"fetching {request.name}")
        package, fetched = self._fetch(request)
        rows, facts = self._measure(request, package, fetched)
        self._end(
            request, DONE, f"{sum(not row.reason for row in rows)} of {len(rows)} candidates are good", rows, facts
        )

    def _fetch(self, request: TrialRequest) -> tuple[Package, Fetched]:
        """The files of the variants that may run here, audited."""
        around, settings = self._around, self._around.settings()
        limits = settings.limits
        if reason := shortage(settings.data, 0, reserve=limits.disk_reserve_bytes, quota=limits.disk_quota_bytes):
            raise _Ended(reason)
        files = TrialFiles(settings.data)
        bounds = FetchLimits(
            max_release_bytes=min(limits.max_release_bytes, around.rules.max_bytes),
            disk_reserve_bytes=limits.disk_reserve_bytes,
            disk_quota_bytes=2 * around.rules.max_bytes,  # what is linked in counts there, too
            max_bytes_per_s=limits.max_bytes_per_s,
        )
        offer = Offer(request.digest, request.name, "", None, around.hub(), request.index_size)
        for attempt in range(1, MOST_FETCHES + 1):
            try:
                with Fetcher(
                    files,
                    bounds,
                    hub=settings.hub,
                    providers=usable_providers(allowed=settings.tests.allowed_providers),
                    required=settings.tests.required_providers,
                    received=lambda count: None,
                    make_room=lambda spare: None,
                    interrupted=lambda wait_s: self._unwanted(request, wait_s),
                    tls=settings.tls,
                    index_path=lambda digest: f"/api/v1/blobs/{digest.removeprefix('sha256:')}",
                ) as fetcher:
                    fetched = fetcher.fetch(offer, Vouched(model=request.name))
                break
            except Transient as error:
                if self._unwanted(request, 0.0):
                    raise _Dropped from error
                if attempt == MOST_FETCHES:
                    raise _Ended(str(error)) from error
                self._tell(request, FETCHING, str(error))
                self._unwanted(request, FETCH_PAUSE_S)
            except UpdateError as error:
                raise _Ended(str(error)) from error
        self._tell(request, CHECKING, f"auditing {request.name}")
        try:
            folder = files.assemble(request.digest, fetched.entries)
            audit_in_child(
                folder,
                index=fetched.index,
                variants=fetched.variants,
                allow_hard_links=True,
                timeout_s=settings.audit_timeout_s,
            )
            return Package.open(folder, index=fetched.index), fetched
        except OSError as error:
            raise _Ended(f"the candidates cannot be put together: {error}") from error
        except PackageError as error:
            raise _Ended(f"audit: {error}") from error

    # ── measuring ─────────────────────────────────────────────────────────────────────────────

    def _measure(
        self, request: TrialRequest, package: Package, fetched: Fetched
    ) -> tuple[tuple[TrialRow, ...], dict[str, str]]:
        rules = self._around.settings().tests.for_providers()
        asked = request.variants or tuple(package.variants)
        if unknown := set(asked) - set(package.variants):
            raise _Ended(f"there is no variant {min(unknown)!r}; there are {', '.join(package.variants)}")
        here = [name for name in asked if name in fetched.variants]
        rows = [_absent(package, name) for name in asked if name not in here]
        try:
            found = candidates(package, rules, here) if here else []
        except ModelLoadError as error:
            raise _Ended(str(error)) from error
        if not found:
            raise _Ended("; ".join(dict.fromkeys(row.reason for row in rows)) or "there is nothing to measure")
        found = found[: MOST_ROWS - len(rows)]
        end = time.monotonic() + self._around.rules.max_s
        for number, candidate in enumerate(found):
            left = end - time.monotonic()
            # What one does not use is there for the others.
            seconds = left / (len(found) - number)
            what = f"{candidate.variant} on {candidate.provider}, {candidate.threads} threads"
            if left < 1.0:
                measured = Measured(f"no time was left of {self._around.rules.max_s:g} s (trials_max_s)")
            else:
                self._tell(request, MEASURING, f"{what}: {number + 1} of {len(found)}")
                measured = self._one(request, package, candidate, seconds)
            rows.append(_row(candidate, measured))
        return tuple(rows), _facts(rules)

    def _one(self, request: TrialRequest, package: Package, candidate: Candidate, seconds: float) -> Measured:
        """Measure one candidate while the device is idle; again when it was needed meanwhile."""
        rules = self._around.settings().tests.for_providers()
        launch = rules.launch(candidate.provider, candidate.threads, None)
        bounds = Bounds(request.calls, seconds, self._around.rules.max_memory_bytes)
        disturbed = ""
        for _ in range(MOST_TRIES):
            load = _Load(self._around)
            interruptions: list[str] = []

            def stop(load: _Load = load, interruptions: list[str] = interruptions) -> str:
                if self._unwanted(request, 0.0):
                    return "it is not wanted any more"
                if reason := busy(self._around.rules, load.look()):
                    interruptions.append(reason)
                return reason

            measured = measure_in_child(package, candidate.variant, launch, bounds, stop)
            if self._unwanted(request, 0.0):
                raise _Dropped
            if not interruptions:
                return measured
            disturbed = interruptions[0]
            self._tell(request, WAITING, f"the device was needed meanwhile: {disturbed}")
            self._wait_for_rest(request)
        return Measured(f"the device was not idle for long enough, in {MOST_TRIES} tries: {disturbed}")

    def _wait_for_rest(self, request: TrialRequest) -> None:
        """Until the device has been idle for `IDLE_S`; the hub says when that has taken too long."""
        load, since = _Load(self._around), time.monotonic()
        while True:
            if self._unwanted(request, LOOK_S):
                raise _Dropped
            if reason := busy(self._around.rules, load.look()):
                since = time.monotonic()
                self._tell(request, WAITING, reason)
            elif time.monotonic() - since >= IDLE_S:
                return

    def _unwanted(self, request: TrialRequest, wait_s: float) -> bool:
        """Wait, and say whether the agent stops or the hub wants something else."""
        return self._stopping.wait(wait_s) or self._wanted != request

    # ── what is told ──────────────────────────────────────────────────────────────────────────

    def _tell(self, request: TrialRequest, state: str, reason: str) -> None:
        now = TrialReport(request.id, state, reason[:MOST_REASON])
        with self._lock:
            before, self._report = self._report, now
        if before is None or (before.id, before.state) != (now.id, now.state):
            self._keep(now)
        if before != now:
            log.info("trial", trial=request.id, state=state, reason=reason)
            self._around.report()

    def _end(
        self,
        request: TrialRequest,
        state: str,
        reason: str,
        rows: Sequence[TrialRow] = (),
        facts: dict[str, str] | None = None,
    ) -> None:
        now = TrialReport(request.id, state, reason[:2000], tuple(rows), facts or {})
        try:
            self._keep(now)
        except _Ended as error:  # a later life may measure it again; this one answers all the same
            log.error("the answer to a trial could not be kept", reason=str(error))
        with self._lock:
            self._report = now
        log.info("trial", trial=request.id, state=state, reason=reason)
        self._around.report()

    def _kept(self) -> TrialReport | None:
        try:
            note = self._store.note(NOTE)
            return None if note is None else TrialReport.from_wire(decode(note))
        except (StoreError, ProtocolError):
            return None

    def _keep(self, report: TrialReport) -> None:
        try:
            self._store.set_note(NOTE, encode(report.to_wire()))
        except StoreError as error:
            raise _Ended(f"the agent's records cannot be written: {error}") from error


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
    return TrialRow(variant, provider, reason=(missing_because(provider))[:MOST_REASON])


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
