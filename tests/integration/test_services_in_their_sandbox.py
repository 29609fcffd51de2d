"""What the units of systemd allow is all that agent and hub do: they run under strace, and every call is looked at."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.doubles.packages import make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import HubProcess, wait_for

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
#: Calls that open, make, move or remove files, and that open sockets: their arguments are looked at.
LOOKED_AT = {
    *("open", "openat", "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"),
    *("link", "linkat", "symlink", "symlinkat", "mknod", "mknodat", "truncate", "socket"),
}
#: Private to the service, or no file at all.
HARMLESS = ("/tmp/", "/var/tmp/", "/dev/null", "/dev/shm/", "/dev/tty")
_CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)[( ]")
_PATH = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)"|"([^"]*)"')


@cache
def syscalls(group: str) -> frozenset[str]:
    """The calls of a group, as systemd lists them."""
    lines = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
    ).stdout.split("\n")[1:]
    found: set[str] = set()
    for name in (line.strip() for line in lines):
        if name.startswith("@"):
            found |= syscalls(name)
        elif name and not name.startswith("#"):
            found.add(name)
    return frozenset(found)


def directives(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / f"{unit}.service").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@cache
def allowed(unit: str) -> frozenset[str]:
    """What the unit's filters leave."""
    found: set[str] = set()
    for words in directives(unit)["SystemCallFilter"]:
        groups = words.removeprefix("~").split()
        calls = {call for group in groups for call in (syscalls(group) if group.startswith("@") else {group})}
        found = found - calls if words.startswith("~") else found | calls
    return frozenset(found)


@dataclass
class Traced:
    """A program under strace; `calls` gives what it did besides what is allowed without a look."""

    unit: str
    python: Path
    log: Path

    def calls(self) -> list[tuple[str, str]]:
        lines = self.log.read_text(errors="replace").splitlines()
        return [(match[1], line) for line in lines if (match := _CALL.match(line))]

    def check(self, data: Path) -> None:
        calls = self.calls()
        assert {name for name, _ in calls} >= {"openat", "socket"}, "nothing was traced"
        forbidden = {name for name, _ in calls} - allowed(self.unit)
        if os.geteuid() == 0:
            forbidden -= {"fchown"}  # SQLite gives its files to the owner of the database, when it is root alone
        assert not forbidden, f"{self.unit}.service refuses {forbidden}"
        families = set(re.findall(r"socket\((AF_\w+|PF_\w+)", "\n".join(line for _, line in calls)))
        assert families <= set(directives(self.unit)["RestrictAddressFamilies"][0].split())
        outside = [line for name, line in calls if writes(name, line) and not inside(line, data)]
        assert not outside, f"{self.unit}.service lets it write in its data folder alone: {outside[:5]}"


def writes(name: str, line: str) -> bool:
    if name not in LOOKED_AT or name == "socket" or "= -1 " in line or "resumed>" in line:
        return False
    return name not in ("open", "openat") or bool(re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", line))


def inside(line: str, data: Path) -> bool:
    paths = [str(Path(base or "/", name or plain)) for base, name, plain in _PATH.findall(line)]
    return bool(paths) and all(
        path.startswith(str(data)) or (path.startswith(HARMLESS) and str(data.parents[1]) not in path) for path in paths
    )


@pytest.fixture
def strace() -> None:
    """Somebody who may trace processes is needed."""
    for program, package in (("strace", "strace"), ("systemd-analyze", "systemd")):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {package}")
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("this machine lets nobody trace a process")


def traced(unit: str, folder: Path) -> Traced:
    """A Python that runs under strace. `-D` leaves the program the child of its starter, which signals it."""
    found = Traced(unit, folder / f"python-{unit}", folder / f"{unit}.strace")
    quiet = ",".join(f"?{name}" for name in sorted(allowed(unit) - LOOKED_AT))
    strace = f'strace -D -f --seccomp-bpf -qq -y -o "{found.log}" -e "trace=!{quiet}"'
    found.python.write_text(f'#!/bin/sh\nexec {strace} "{sys.executable}" "$@"\n')
    found.python.chmod(0o755)
    return found


@pytest.mark.usefixtures("strace")
def test_agent_and_hub_do_what_their_units_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_package(tmp_path / "package")
    hub_trace, agent_trace = traced("cloud-hub", tmp_path), traced("edge-agent", tmp_path)
    hub = HubProcess(tmp_path / "hub")
    agent = AgentProcess(
        tmp_path / "agent", hub=f"http://127.0.0.1:{hub.http_port}", broker_port=hub.broker_port, channel="stable"
    )
    try:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(hub_trace.python))
            hub.start()
            patch.setattr(sys, "executable", str(agent_trace.python))
            agent.start()
        files = {entry.sha256: (package.root / entry.path).read_bytes() for entry in package.index.entries}
        digest = hub.publish(package.index.to_bytes(), files)
        hub.api.post("/api/v1/channels/stable/releases", json={"digest": digest}).raise_for_status()
        wait_for(lambda: agent.http.get("/v2/health/ready").status_code == 200, 60, "the release to serve")
        (spec,) = agent.http.get("/v2/models/digits").json()["inputs"]
        shape = [1, *spec["shape"][1:]]
        tensor = {"name": spec["name"], "datatype": "FP32", "shape": shape, "data": np.zeros(shape).ravel().tolist()}
        assert agent.http.post("/v2/models/digits/infer", json={"inputs": [tensor]}).status_code == 200
        assert agent.stop() == 0
        assert hub.stop() == 0
    finally:
        agent.close()
        hub.close()
    agent_trace.check(agent.data)
    hub_trace.check(hub.folder / "data")
