"""Peers: read from their scripts, installed each in an environment of its own, started."""

from __future__ import annotations

import re
import tomllib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kit.environments import environment
from benchmarks.kit.processes import Running, running
from benchmarks.kit.requests import PROTOCOLS, Encoder

_SCRIPTS = Path(__file__).parent / "peers"
#: The block of metadata at a script's head: https://packaging.python.org/specifications/inline-script-metadata.
_BLOCK = re.compile(r"^# /// script\n((?:#(?: .*)?\n)+)# ///$", re.MULTILINE)
#: One thread a run wherever a library decides by itself; nobody is told that it was used.
_SETTINGS = {
    "PYTHONPATH": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


@dataclass(frozen=True)
class Peer:
    """A server of somebody else.

    Attributes:
        key: the script's name without ``with_``: what the command line takes.
        name: as a table calls it, with its version.
        requirements: what is installed.
        path: of its endpoint.
        encoder: makes a request.
        settings: how it is set, in words.
    """

    key: str
    name: str
    requirements: tuple[str, ...]
    path: str
    encoder: Encoder
    settings: str

    def install(self) -> Path:
        """Its Python; raises InstallError."""
        return environment(self.key, self.requirements)

    def start(self, python: Path, model: Path, port: int, folder: Path) -> AbstractContextManager[Running]:
        """A process that will serve on a port of loopback."""
        script = _SCRIPTS / f"with_{self.key}.py"
        return running([str(python), str(script), str(model), str(port)], env=_SETTINGS, cwd=folder)


def known() -> dict[str, Peer]:
    """Every peer by its key."""
    peers = [_read(script) for script in sorted(_SCRIPTS.glob("with_*.py"))]
    return {peer.key: peer for peer in peers}


def _read(script: Path) -> Peer:
    block = _BLOCK.search(script.read_text())
    assert block is not None, f"{script} has no metadata"
    found = tomllib.loads(re.sub(r"(?m)^# ?", "", block[1]))
    about, requirements = found["tool"]["edgeloop"], tuple(found["dependencies"])
    name = f"{about['name']} {requirements[0].partition('==')[2]}"
    key = script.stem.removeprefix("with_")
    return Peer(key, name, requirements, about["path"], PROTOCOLS[about["protocol"]], about["settings"])
