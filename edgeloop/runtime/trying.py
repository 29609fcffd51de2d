"""Trying one candidate: in a process of its own first, then here, under supervision, held to the golden cases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from edgeloop.package import Package, PackageError
from edgeloop.runtime.candidates import Candidate, Rules
from edgeloop.runtime.compiled import Compiled
from edgeloop.runtime.errors import ModelLoadError
from edgeloop.runtime.golden import GoldenReport, check_golden
from edgeloop.runtime.isolated import PROGRESS_S, Progress, try_in_child
from edgeloop.runtime.launch import Launch
from edgeloop.runtime.providers import CPU, available_providers, missing_because
from edgeloop.runtime.session import ModelSession

#: Seconds that a run of the golden cases, or of one row, may take on the CPU.
RUN_DEADLINE_S = 30.0

T = TypeVar("T")


def silent(_: str) -> None:
    """Progress that nobody wants to see."""


def survive(
    package: Package, candidate: Candidate, rules: Rules, compiled: Compiled | None, progress: Progress
) -> None:
    """Have a process of its own load and check one candidate; the CPU's need not be tried.

    Raises:
        ModelLoadError: it does not load there, hangs, crashes the process, or is wrong.
    """
    if candidate.provider == CPU:
        return
    if candidate.provider not in available_providers():
        raise ModelLoadError(missing_because(candidate.provider))
    progress(f"{candidate.variant} is tried on {candidate.provider}, which may have to compile it first")
    launch = rules.launch(candidate.provider, candidate.threads, compiled)
    if reason := try_in_child(package, candidate.variant, launch, progress, rules.deadline_s):
        raise ModelLoadError(reason)


def load_checked(
    package: Package, candidate: Candidate, rules: Rules, compiled: Compiled | None, progress: Progress
) -> tuple[ModelSession, GoldenReport]:
    """Load one candidate and hold it to the golden cases.

    Args:
        package: the package.
        candidate: what is loaded.
        rules: the owner's.
        compiled: where what providers compile is kept.
        progress: told of what takes long.

    Raises:
        ModelLoadError: it does not load, hangs, or is wrong.
    """
    launch = rules.launch(candidate.provider, candidate.threads, compiled)
    if candidate.provider == CPU:
        return _checked(package, candidate, launch, RUN_DEADLINE_S)
    what = f"{candidate.variant} is loaded on {candidate.provider}"
    return supervised(lambda: _checked(package, candidate, launch, rules.deadline_s), what, progress, rules.deadline_s)


def _checked(
    package: Package, candidate: Candidate, launch: Launch, deadline_s: float
) -> tuple[ModelSession, GoldenReport]:
    session = ModelSession.load(
        package,
        candidate.variant,
        candidate.provider,
        policy=launch.policy,
        threads=launch.threads,
        allow_cpu_fallback=launch.allow_cpu_fallback,
        options=launch.options,
        compiled=launch.compiled,
    )
    try:
        golden = check_golden(session, package, deadline_s)
    except PackageError as error:
        session.close()
        raise ModelLoadError(f"golden: {error}") from error
    if not golden.ok:
        session.close()
        raise ModelLoadError(golden.reason)
    return session, golden


def supervised(action: Callable[[], T], what: str, progress: Progress, deadline_s: float) -> T:
    """Do something that may hang: on a thread of its own, with a line of progress every few seconds.

    Native code cannot be stopped: after the deadline its thread is left behind.

    Raises:
        ModelLoadError: it took too long; or whatever the action raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="loading", daemon=True)
    start = time.monotonic()
    thread.start()
    while thread.is_alive():
        elapsed = time.monotonic() - start
        if elapsed > deadline_s:
            raise ModelLoadError(f"{what}: it took longer than {deadline_s:.0f} s")
        thread.join(min(PROGRESS_S, deadline_s - elapsed + 0.01))
        if thread.is_alive():
            progress(f"{what}, {time.monotonic() - start:.0f} s so far")
    if errors:
        raise errors[0]
    return results[0]
