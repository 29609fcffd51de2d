"""A tutorial is run as its reader runs it: files are written, commands typed, and what a page shows has to come.

A block with a title is a file of that name. Of a ``console`` block each line that begins with ``$`` is a command (where
it ends in a backslash, the next belongs to it), and what follows is its output, in which ``…`` stands for anything.
A console with the title ``second terminal`` goes on beside the others until the end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.integration.brokers import free_port

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "tutorials"
#: The agent's port on every page; a test takes a free one instead.
PORT = "8080"
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LIMIT_S = 240.0


@dataclass(frozen=True)
class Step:
    """A command, and what the page shows of its output."""

    command: str
    shown: str


def follow(page: str, folder: Path) -> None:
    """Do all that the page says, in ``folder``.

    Raises:
        AssertionError: a command failed, or said something else than the page shows.
    """
    text = (PAGES / page).read_text()
    port = str(free_port())
    (folder / ".venv").symlink_to(sys.prefix)
    environment = os.environ | {
        "EDGE_AGENT_LISTEN_PORT": port,
        "MODEL_EXPORT_CACHE": str(folder / "cache"),
        "COLUMNS": "200",
    }
    ran = 0
    with ExitStack() as ending:
        for kind, title, body in _BLOCK.findall(text):
            if kind == "console":
                for step in steps(body.replace(f":{PORT}", f":{port}")):
                    if title == "second terminal":
                        ending.callback(_stop, _start(step.command, folder, environment))
                    else:
                        _run(step, folder, environment)
                    ran += 1
            elif title:
                (folder / title).write_text(body)
    assert ran, f"{page} has no command"


def steps(body: str) -> Iterator[Step]:
    """The commands of a console block."""
    lines = body.splitlines()
    while lines:
        line = lines.pop(0)
        assert line.startswith("$ "), f"output of no command: {line}"
        command = [line[2:]]
        while command[-1].endswith("\\"):
            command.append(lines.pop(0))
        shown = []
        while lines and not lines[0].startswith("$ "):
            shown.append(lines.pop(0))
        yield Step("\n".join(command), "\n".join(shown))


def _run(step: Step, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", step.command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    told = f"$ {step.command}\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, told
    parts = [re.escape(" ".join(part.split())) for part in step.shown.split("…")]
    assert not step.shown or re.search(".*?".join(parts), " ".join(done.stdout.split())), told


def _start(command: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "second-terminal.log").open("wb") as log:
        return subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stdout=log, stderr=log)


def _stop(program: subprocess.Popen[bytes]) -> None:
    program.send_signal(signal.SIGTERM)
    try:
        program.wait(20)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
