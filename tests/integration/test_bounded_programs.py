"""A program within limits: whatever it does, it ends in time, the reason is told, and nothing of it is left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cloud_hub.training.bounded import MARK, Call, ChildRunner, Limits, run
from cloud_hub.training.program_lines import Line
from cloud_hub.training.trainer import Cancelled, TrainingError

#: Seconds in which a busy machine does anything here.
PATIENCE_S = 60.0


def call(folder: Path, code: str, **limits: Any) -> Call:
    bounds = Limits(**{"seconds": PATIENCE_S, "spare_bytes": 0, "grace_s": 0.5, **limits})
    return Call("the program", [sys.executable, "-c", code], folder, folder / "job.json", bounds)


def left_of(mark: Path) -> list[psutil.Process]:
    """Processes that carry the mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def go(asked: Call, stopped: Callable[[], bool] = lambda: False) -> list[Line]:
    said: list[Line] = []
    try:
        run(ChildRunner(), asked, said.append, stopped)
    finally:
        assert not left_of(asked.mark)
    return said


def test_what_it_says_is_heard_and_what_it_is_told_is_not_the_hubs_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_HUB_BROKER_PASSWORD", "secret")
    code = "import os; print('progress 0.5 half'); print(sorted(os.environ)); print(os.getcwd())"
    said = go(call(tmp_path, code))
    assert said[0] == Line("half", 0.5) and said[2].text == str(tmp_path / "work")
    assert "CLOUD_HUB" not in said[1].text and MARK in said[1].text


@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        (
            "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)",
            {"seconds": 2},
            "longer than its 2",
        ),
        (
            "import time; x = bytearray(256 << 20); time.sleep(600)",
            {"memory_bytes": 128 << 20},
            "in memory, 134,217,728",
        ),
        ("open('f', 'wb').write(bytes(64 << 20))", {"disk_bytes": 16 << 20}, "File too large"),
        (
            "import time\nfor i in range(40): open(str(i), 'wb').write(b'x' * (1 << 20))\ntime.sleep(600)",
            {"disk_bytes": 16 << 20},
            "16,777,216 are allowed",
        ),
        ("import time; time.sleep(600)", {"spare_bytes": 1 << 60}, "have to stay free"),
        ("raise SystemExit('there are no rows')", {}, "status 1; its last line: there are no rows"),
        ("import os; os.kill(os.getpid(), 11)", {}, "by signal 11"),
        ("import os; os.kill(os.getppid(), 9); import time; time.sleep(600)", {}, "was lost"),
    ],
    ids=["time", "memory", "a file", "files", "a full disk", "a crash", "a signal", "its watcher's death"],
)
def test_a_limit_ends_it_and_says_so(code: str, limits: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=reason):
        go(call(tmp_path, code, **limits))


def test_what_it_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(600)\n  os._exit(0)\n"
        "print('done')"
    )
    assert [line.text for line in go(call(tmp_path, code))] == ["done"]


def test_a_program_that_is_not_there_cannot_be_started(tmp_path: Path) -> None:
    asked = call(tmp_path, "")
    asked = Call(asked.name, ["no-such-program"], asked.folder, asked.mark, asked.limits)
    with pytest.raises(TrainingError, match="cannot be started: No such file or directory: no-such-program"):
        go(asked)


def test_it_is_stopped_when_the_run_is(tmp_path: Path) -> None:
    asked = call(tmp_path, "import time; open('begun', 'w'); time.sleep(600)")
    with pytest.raises(Cancelled):
        go(asked, (tmp_path / "work" / "begun").exists)


def test_a_flood_of_lines_is_cut_and_how_far_it_is_still_heard(tmp_path: Path) -> None:
    code = (
        "import time\nfor i in range(20000): print('y' * 100)\nwhile True: print('progress 0.7 on'); time.sleep(0.05)"
    )
    asked, heard = call(tmp_path, code, log_bytes=5000), list[Line]()
    with pytest.raises(Cancelled):
        run(ChildRunner(), asked, heard.append, lambda: Line("on", 0.7) in heard)
    assert len(heard) < 80 and any("the log is full" in line.text for line in heard)
    assert asked.log.stat().st_size < 10_000


def test_a_hub_that_is_killed_leaves_nothing_of_it(tmp_path: Path) -> None:
    """Watcher and program are children of a process that is killed by SIGKILL."""
    code = "import time; open('begun', 'w'); time.sleep(600)"
    asked = call(tmp_path, code)
    hub = (
        "from pathlib import Path; import sys; from cloud_hub.training.bounded import *\n"
        f"folder, mark = map(Path, {[str(asked.folder), str(asked.mark)]!r})\n"
        f"limits = Limits(600, spare_bytes=0, grace_s=0.5); command = [sys.executable, '-c', {code!r}]\n"
        "call = Call('p', command, folder, mark, limits)\n"
        "ChildRunner().run(call, lambda line: None, lambda: False)"
    )
    process = subprocess.Popen([sys.executable, "-c", hub])
    try:
        wait_for((asked.work / "begun").exists)
        assert left_of(asked.mark)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not left_of(asked.mark))
        wait_for((asked.records / "end.json").exists)
        found = asked.end()
        assert found is not None and found.stopped and "the hub is gone" in found.why
    finally:
        process.kill()
        process.wait()
