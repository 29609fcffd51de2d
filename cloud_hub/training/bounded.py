"""Running what is not trusted: a program within limits, in processes of its own, of which nothing is left afterwards.

`cloud_hub.training.bounded_child` watches it from beside. Here is what the hub does meanwhile: read the log as it
grows, ask whether the run has to end, and see to it that it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from cloud_hub.training.bounded_child import WORK, End, Request
from cloud_hub.training.program_lines import Line, read_line
from cloud_hub.training.trainer import Cancelled, TrainingError

#: Seconds between two looks at log and watcher.
LOOK_S = 0.1
#: Seconds that a watcher may need beyond what its program may take.
WATCHER_S = 10.0
#: Bytes of a log that are read at a time.
CHUNK = 1 << 16
#: Names the request in the environment of every process of a program, so that a later hub knows what was left.
MARK = "EDGELOOP_JOB"


@dataclass(frozen=True)
class Limits:
    """What a program may take; see `TrainingProgram`."""

    seconds: float
    memory_bytes: int = 4 << 30
    disk_bytes: int = 8 << 30
    spare_bytes: int = 1 << 30
    log_bytes: int = 1 << 20
    grace_s: float = 5.0


@dataclass(frozen=True)
class Call:
    """A program to be run.

    Attributes:
        name: for messages.
        command: program and arguments.
        folder: all of the program's files. It starts in ``work/`` there, which is made anew for each attempt, and so is
            ``output/``; whatever else is there stays.
        mark: a file that tells the program what to do; its path is what `MARK` is in the program's environment.
        limits: what it may take.
        environment: variables besides those that are passed on.
        cpus: processors, where a cluster shares them out.
        gpus: accelerators, likewise.
    """

    name: str
    command: Sequence[str]
    folder: Path
    mark: Path
    limits: Limits
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def work(self) -> Path:
        """Where it starts."""
        return self.folder / WORK

    @property
    def output(self) -> Path:
        """Where it leaves what it makes."""
        return self.folder / "output"

    @property
    def records(self) -> Path:
        """Request, log and end."""
        return self.folder / "records"

    @property
    def log(self) -> Path:
        """What it has written."""
        return self.records / "log.txt"

    @property
    def stop(self) -> Path:
        """The file that ends it."""
        return self.records / "stop"

    def begin(self, parent: int | None) -> Path:
        """Have nothing of an earlier attempt be there but what stays; returns the file that the watcher reads.

        Args:
            parent: process without which it ends, or None.
        """
        for folder in (self.work, self.output, self.records):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        request = Request(
            list(self.command),
            str(self.folder),
            {**self.environment, MARK: str(self.mark)},
            str(self.log),
            str(self.records / "end.json"),
            str(self.stop),
            parent,
            **asdict(self.limits),
        )
        path = self.records / "request.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(request)))
        return path

    def end(self) -> End | None:
        """How it ended, or None: it has not, or nobody is left who could tell."""
        try:
            return End(**json.loads((self.records / "end.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


class Runner(Protocol):
    """Where programs run."""

    def run(self, call: Call, say: Callable[[Line], None], stopped: Callable[[], bool]) -> End:
        """Run a program to its end; none of its processes is left when this returns.

        Args:
            call: the program.
            say: gets every line of its log.
            stopped: whether it has to end now.

        Raises:
            TrainingError: it cannot be run here.
        """


class ChildRunner:
    """Implements `Runner`: a child of the hub."""

    def run(self, call: Call, say: Callable[[Line], None], stopped: Callable[[], bool]) -> End:
        """Run it beside the hub."""
        end_marked(call.mark)  # of a hub whose watcher was killed with it
        follower = Follower(call.log, say)
        command = [sys.executable, "-P", "-m", "cloud_hub.training.bounded_child", str(call.begin(os.getpid()))]
        with (call.records / "watcher.txt").open("wb") as errors:
            watcher = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
            )
        try:
            _wait(watcher, call.limits, stopped, follower)
        finally:
            if watcher.poll() is None:
                _kill_tree(watcher.pid)
                watcher.wait()
            end_marked(call.mark)
        follower.read()
        return call.end() or End(None, f"was lost: its watcher ended with status {watcher.returncode}")


def run(runner: Runner, call: Call, say: Callable[[Line], None], stopped: Callable[[], bool]) -> End:
    """`Runner.run`, for a program that has to end by itself and well; errors as in `judged`."""
    return judged(call, runner.run(call, say, stopped))


def judged(call: Call, end: End) -> End:
    """An end, if it is a good one.

    Raises:
        Cancelled: the program was stopped.
        TrainingError: it exceeded a limit, failed, or could not be started; the message has its last line.
    """
    if end.stopped:
        raise Cancelled(f"{call.name} {end.why}")
    if end.why:
        raise TrainingError(f"{call.name} {end.why}{_last(end)}")
    if end.code != 0:
        how = f"by signal {-end.code}" if end.code is not None and end.code < 0 else f"with status {end.code}"
        raise TrainingError(f"{call.name} ended {how}{_last(end)}")
    return end


def _last(end: End) -> str:
    line = next((read_line(line).text for line in reversed(end.last) if line.strip()), "")
    return f"; its last line: {line}" if line else ""


class Follower:
    """Reads a log as it grows.

    Args:
        path: the log; it need not be there yet.
        say: gets every line.
    """

    def __init__(self, path: Path, say: Callable[[Line], None]) -> None:
        self._path, self._say, self._at, self._part = path, say, 0, b""

    def read(self) -> None:
        """What is new."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._at)
            while chunk := file.read(CHUNK):
                self._at += len(chunk)
                *lines, self._part = (self._part + chunk).split(b"\n")
                for line in lines:
                    self._say(read_line(line.decode(errors="replace")))


def _wait(watcher: subprocess.Popen[bytes], limits: Limits, stopped: Callable[[], bool], follower: Follower) -> None:
    """Until the watcher has ended, or should have."""
    until = time.monotonic() + limits.seconds + limits.grace_s + WATCHER_S
    asked = False
    while watcher.poll() is None and time.monotonic() < until:
        follower.read()
        if not asked and stopped():
            watcher.send_signal(signal.SIGTERM)
            asked, until = True, min(until, time.monotonic() + limits.grace_s + WATCHER_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            watcher.wait(LOOK_S)


def _kill_tree(pid: int) -> None:
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (*root.children(recursive=True), root):
            with contextlib.suppress(psutil.Error):
                process.kill()


def end_marked(mark: Path) -> None:
    """Kill every process of this user that has this mark in its environment."""
    me = os.getuid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real == me and process.environ().get(MARK) == str(mark):
                process.kill()
