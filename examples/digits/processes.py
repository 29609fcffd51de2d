"""Real processes: started, stopped in an orderly way, or killed, and always by the process that we started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class ProcessFailed(RuntimeError):
    """A program ended, or did not do what was waited for; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(*, insecure: bool = False) -> dict[str, str]:
    """Of programs: with certificates and signatures or without, whatever this shell says."""
    said = str(insecure).lower()
    return {**os.environ, "CLOUD_HUB_INSECURE": said, "EDGE_AGENT_INSECURE": said}


def command(name: str) -> str:
    """Path of one of edgeloop's console scripts, beside the Python that runs this."""
    return str(Path(sys.executable).parent / name)


class Program:
    """One program with its log file; it can be started again after it was stopped or killed."""

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; raises `ProcessFailed` when the program was never started."""
        if self._process is None:
            raise ProcessFailed(f"{self.name} was never started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program; its output goes to the end of its log."""
        if self.alive:
            raise ProcessFailed(f"{self.name} runs already")
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self.argv, stdout=out, stderr=subprocess.STDOUT, env=self._env, cwd=self._cwd
            )

    def check(self) -> None:
        """Raise `ProcessFailed` with the end of the log when the program was started and has ended by itself."""
        if self._process is not None and not self.alive:
            raise ProcessFailed(f"{self.name} ended; the end of {self.log}:\n{self.tail()}")

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is saved."""
        if self._process is not None and self.alive:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM, and SIGKILL after ``timeout_s``; returns the exit status."""
        if self._process is None:
            return 0
        if self.alive:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self._process.wait())

    def tail(self, lines: int = 25) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
