"""Processes that are measured: started, asked for their memory and processor time with all their children, ended."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import psutil

MB = 1_000_000


class StartError(Exception):
    """A process ended, or said nothing, before it was ready; the message is one line that says why."""


class Running:
    """A process that runs. Its standard output is read all the time, so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.pid = process.pid
        threading.Thread(target=self._read, daemon=True).start()

    def line(self, timeout_s: float = 60.0) -> str:
        """Its next line, for which it has so long.

        Raises:
            StartError: there is none.
        """
        with contextlib.suppress(queue.Empty):
            if line := self._lines.get(timeout=timeout_s):
                return line
        raise StartError(self.why())

    def ask(self, line: str, timeout_s: float = 60.0) -> str:
        """Give it a line; returns the line that it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        return self.line(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def why(self) -> str:
        """What it has complained of last: one line."""
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        state = "it runs, and says nothing" if self.alive else "it has ended"
        return f"{state}: {lines[-1][:300]}" if lines else state

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


@contextlib.contextmanager
def running(command: Sequence[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> Iterator[Running]:
    """A process; it and all its children are ended afterwards.

    Args:
        command: what to run.
        env: set in addition to this process's own environment.
        cwd: its folder.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            bufsize=1,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            yield Running(process, errors)
        finally:
            _end(process)


def pss(pid: int) -> int:
    """Proportional set size of a process and its children, bytes."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            total += process.memory_full_info().pss
    return total


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its children have used so far, seconds."""
    total = 0.0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _end(process: subprocess.Popen[str]) -> None:
    """Ask politely, then end what is left of it: servers leave workers behind, some in sessions of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = _tree(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        # Its children clean up after it: PyTriton's would leave shared memory behind.
        _, left = psutil.wait_procs(family, timeout=5)
        for member in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Its standard output ends by itself, and with it the thread that reads it.
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
