"""The process between the hub and a program that it does not trust: it starts it, watches it, and leaves nothing of it.

``python -m cloud_hub.training.bounded_child REQUEST`` reads a `Request` as JSON, and writes an `End` as JSON when no
process of the program is left. It ends the program when a limit is exceeded, when it gets SIGTERM itself, and when its
parent is gone: a hub that was killed leaves no training behind. On Linux it also adopts what the program's processes
leave alone, so that a program in the background ends with the rest.

It runs on a machine of a Ray cluster as it does beside the hub.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import psutil

from edgeloop.whole_files import write_whole

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_ALONE = "was stopped, since the hub is gone"
#: Seconds between two looks at memory, time and parent.
LOOK_S = 0.1
#: A look at the disk walks over all files, so it comes when it has been idle for so many times of what it took.
DISK_RESTS, DISK_LEAST_S = 10.0, 0.5
#: More processes than any training needs, and less than what a machine can bear.
MOST_PROCESSES = 1000
#: More files than that are not counted any more: the folder is as good as full.
MOST_FILES = 200_000
#: What is kept of a line, characters, and of the last lines, for whoever asks why it failed.
LINE, LAST_LINES = 2000, 20
#: Folder in which a program starts.
WORK = "work"
#: Variables that a program gets.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "MKL_", "RAY_")
FULL = b"(the log is full: from here on it has only how far the program is)"


@dataclass(frozen=True)
class Request:
    """A program, and its limits.

    Attributes:
        command: program and arguments.
        folder: whose files are counted; it starts in `WORK` there.
        environment: variables besides those that are passed on.
        log: file that its output is added to.
        end: file of the `End`.
        stop: file whose appearance ends it; SIGTERM does so, too.
        parent: process without which it ends, or None: there is none on this machine.
        seconds: of its life.
        memory_bytes: of all its processes together.
        disk_bytes: of the folder.
        spare_bytes: that stay free on the folder's disk.
        log_bytes: of its output that are kept.
        grace_s: from SIGTERM to SIGKILL.
    """

    command: Sequence[str]
    folder: str
    environment: dict[str, str]
    log: str
    end: str
    stop: str
    parent: int | None
    seconds: float
    memory_bytes: int
    disk_bytes: int
    spare_bytes: int
    log_bytes: int
    grace_s: float


@dataclass(frozen=True)
class End:
    """How it ended.

    Attributes:
        code: its exit status, negative for a signal; None where it could not be started or was lost.
        why: "" when it ended by itself; else the limit, or who stopped it, as a sentence without a subject.
        stopped: whether somebody wanted it to end.
        seconds: that it took.
        memory_bytes: the most that was seen.
        disk_bytes: the most that was seen.
        last: last lines of its output.
    """

    code: int | None
    why: str = ""
    stopped: bool = False
    seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    last: Sequence[str] = field(default_factory=tuple)


def main(path: str) -> None:
    """Run what a file asks for."""
    request = Request(**json.loads(Path(path).read_bytes()))
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    end = _run(request, asked)
    write_whole(Path(request.end), json.dumps(asdict(end)).encode())


def _run(request: Request, asked: threading.Event) -> End:
    began = time.monotonic()
    work = Path(request.folder, WORK)
    try:
        program = subprocess.Popen(
            request.command,
            cwd=work,
            env=_environment(request, str(work)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: _limit_itself(request),  # noqa: PLW1509  this process has one thread until then
        )
    except OSError as error:
        return End(None, f"cannot be started: {error.strerror}: {request.command[0]}")
    log = _Log(Path(request.log), request.log_bytes)
    assert program.stdout is not None
    reader = threading.Thread(target=log.take, args=(program.stdout,), daemon=True)
    reader.start()
    watch = _Watch(request, began)
    why = ""
    while program.poll() is None and not why:
        if asked.wait(LOOK_S) or os.path.exists(request.stop):  # noqa: PTH110  asked often
            asked.set()
        why = "was stopped" if asked.is_set() else watch.exceeded()
    _end_all(program, request.grace_s if why else 0.0)
    reader.join(5.0)
    return End(
        code=program.returncode,
        why=why,
        stopped=asked.is_set() or why == _ALONE,
        seconds=round(time.monotonic() - began, 3),
        memory_bytes=watch.memory,
        disk_bytes=watch.disk,
        last=tuple(log.last),
    )


def _environment(request: Request, work: str) -> dict[str, str]:
    """What a program gets of this process's environment, which is the hub's, and may hold secrets."""
    passed = {n: v for n, v in os.environ.items() if n in PASSED_ON or n.startswith(PASSED_ON_PREFIXES)}
    # Caches and temporary files are files of the program, too: they are counted, and go with its folder.
    return {**passed, "HOME": work, "TMPDIR": work, "PYTHONUNBUFFERED": "1", **request.environment}


def _limit_itself(request: Request) -> None:
    """In the program's process, before it begins."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (request.disk_bytes, request.disk_bytes))
    os.umask(0o077)
    if sys.platform == "linux":
        # Whoever watches may be killed, too; and when memory is short, this is what the system shall end first.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


class _Watch:
    """What the program takes, and whether that is too much."""

    def __init__(self, request: Request, began: float) -> None:
        self._request, self._began = request, began
        self._next_disk = 0.0
        self.memory = self.disk = 0

    def exceeded(self) -> str:
        """Why it has to end, or ""."""
        request, now = self._request, time.monotonic()
        if request.parent is not None and os.getppid() != request.parent:
            return _ALONE
        if now - self._began > request.seconds:
            return f"took longer than its {request.seconds:g} s"
        processes = _descendants()
        if len(processes) > MOST_PROCESSES:
            return f"had more than {MOST_PROCESSES} processes"
        if (memory := _memory(processes, request.memory_bytes)) > request.memory_bytes:
            self.memory = memory
            return f"held {memory:,} bytes in memory, {request.memory_bytes:,} are allowed"
        self.memory = max(self.memory, memory)
        return self._disk_exceeded(now)

    def _disk_exceeded(self, now: float) -> str:
        request = self._request
        if now < self._next_disk:
            return ""
        size = folder_bytes(Path(request.folder))
        took = time.monotonic() - now
        self._next_disk = now + max(DISK_LEAST_S, took * (1 + DISK_RESTS))
        self.disk = max(self.disk, size)
        if size > request.disk_bytes:
            return f"wrote {size:,} bytes, {request.disk_bytes:,} are allowed"
        if (free := shutil.disk_usage(request.folder).free) < request.spare_bytes:
            return f"left {free:,} bytes free on the disk, {request.spare_bytes:,} have to stay free"
        return ""


def folder_bytes(folder: Path) -> int:
    """What the files of a folder take of the disk; a file that is deleted meanwhile counts nothing."""
    total = count = 0
    for root, _, files in os.walk(folder):
        count += len(files)
        if count > MOST_FILES:
            return sys.maxsize
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512  # noqa: PTH118  a Path a file is slow
    return total


def _descendants() -> list[psutil.Process]:
    return list(psutil.Process().children(recursive=True))


def _memory(processes: Sequence[psutil.Process], enough: int) -> int:
    """Bytes that processes hold, shared ones once where that matters and the system says it."""
    resident = sum(_each(processes, lambda process: process.memory_info().rss))
    if resident <= enough or sys.platform != "linux":
        return resident
    return sum(_each(processes, lambda process: process.memory_full_info().pss))


def _each(processes: Sequence[psutil.Process], ask: Callable[[psutil.Process], int]) -> Iterator[int]:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            yield ask(process)


def _end_all(program: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask every process of the program to end, and after a while see to it. Returns when there is none."""
    until = time.monotonic() + grace_s
    if grace_s:
        _send(_descendants(), signal.SIGTERM)
        while time.monotonic() < until and _alive(program):
            time.sleep(0.02)
    while left := _alive(program):  # what is killed may just have started another one
        _send(left, signal.SIGKILL)
        time.sleep(0.01)


def _alive(program: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Its processes; those that have ended and wait to be seen are seen."""
    program.poll()
    alive = []
    for process in _descendants():
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
            elif process.pid != program.pid and process.ppid() == os.getpid():
                os.waitpid(process.pid, os.WNOHANG)
        except (psutil.Error, ChildProcessError):
            continue
    return alive


def _send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


class _Log:
    """The program's output, line by line: all of it until it is too much, then only how far it is, once a second."""

    def __init__(self, path: Path, most: int) -> None:
        self._path, self._left, self._full = path, most, False
        self._said = 0.0
        self.last: deque[str] = deque(maxlen=LAST_LINES)

    def take(self, stream: IO[bytes]) -> None:
        """Read to the end, whatever becomes of the log: who does not read, stops who writes."""
        with self._path.open("ab", buffering=0) as file:
            pending = b""
            while chunk := os.read(stream.fileno(), 1 << 16):
                *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
                pending = pending[:LINE]
                for line in lines:
                    self._line(file, line[:LINE])
            self._line(file, pending)

    def _line(self, file: IO[bytes], line: bytes) -> None:
        if not line.strip():
            return
        self.last.append(line.decode(errors="replace"))
        if self._full and not self._tells_how_far(line):
            return
        self._left -= len(line) + 1
        if not self._full and self._left < 0:
            self._full, line = True, FULL
        with contextlib.suppress(OSError):  # of a full disk
            file.write(line + b"\n")

    def _tells_how_far(self, line: bytes) -> bool:
        now = time.monotonic()
        told = line.lstrip(b' {"').startswith((b"progress", b"result")) and now - self._said >= 1.0
        self._said = now if told else self._said
        return told


if __name__ == "__main__":
    main(sys.argv[1])
