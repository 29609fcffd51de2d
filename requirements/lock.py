"""`make lock`: every version and hash that this project installs, resolved once for all Pythons and machines.

uv resolves all extras together, so that a package has one version wherever it is needed; each file then names what its
extra needs beyond the files that it includes. What was locked stays as it is, unless it is named: ``UPGRADE=all``, or
``UPGRADE="numpy onnx"``.

Run by the Python of an environment that has uv, from the checkout's root.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
UV = Path(sysconfig.get_path("scripts"), "uv")
#: File → (extras that it installs, files that it includes).
FILES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "agent": (("agent",), ()),
    "grpc": (("agent", "grpc"), ("agent",)),
    "processing": (("agent", "processing"), ("agent",)),
    "demo": (("demo",), ("agent",)),
    "dev": (("dev",), ("demo", "grpc", "processing")),
    "torch": (("dev", "torch", "huggingface"), ("dev",)),
    "boosting": (("demo", "boosting"), ("demo",)),
    "keras": (("demo", "keras"), ("demo",)),
}
#: What PyTorch 2.13 itself needs. It is not resolved: on some machines its wheels ask for 3 GB of CUDA.
TORCH_NEEDS = ("filelock", "typing-extensions>=4.10", "sympy>=1.13.3", "networkx>=2.5.1", "jinja2", "fsspec>=0.8.5")
#: What no file has, whoever asks for it. NCCL, 300 MB, is xgboost's way from one GPU to another.
LEFT_OUT = ("torch", "nvidia-nccl-cu12")
#: Where the project runs; uv leaves out what only others need, and the markers that say so are true everywhere here.
MACHINES = ("sys_platform == 'linux'", "sys_platform == 'darwin'")
_ALWAYS = "sys_platform == 'darwin' or sys_platform == 'linux'"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def main() -> None:
    """Resolve, and write the files."""
    kept = _kept(os.environ.get("UPGRADE", "").split())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pyproject.toml").write_text(_project(kept))
        _uv(folder, "lock", "--quiet")
        needs = {name: _needs(folder, extras) for name, (extras, _) in FILES.items()}
    for name, (_, includes) in FILES.items():
        own = {package: text for package, text in needs[name].items() if not any(package in needs[i] for i in includes)}
        included = [f"-r {include}.txt" for include in includes]
        lines = ["# Written by `make lock`; not by hand.", *included, *own.values()]
        (HERE / f"{name}.txt").write_text("\n".join(lines) + "\n")
        print(f"requirements/{name}.txt: {len(own)} packages, and what it includes")


def _kept(upgrade: Sequence[str]) -> list[str]:
    """Pins of the present files that stay."""
    if "all" in upgrade:
        return []
    lines = [line for name in FILES if (HERE / f"{name}.txt").exists() for line in (HERE / f"{name}.txt").open()]
    pins = [line.split()[0] for line in lines if "==" in line]
    return sorted(pin for pin in pins if pin.split("==")[0] not in upgrade)


def _project(kept: Sequence[str]) -> str:
    """A project that needs what pyproject.toml says, and what its build needs; as TOML."""
    found = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    project, build = found["project"], found["build-system"]["requires"]
    extras = dict(project["optional-dependencies"])
    extras["torch"] = [*TORCH_NEEDS, *extras["torch"]]
    left_out = [f"{name} ; sys_platform == 'never'" for name in LEFT_OUT]
    return "\n".join(
        [
            "[project]",
            f"name = {json.dumps(project['name'])}",
            'version = "0"',
            f"requires-python = {json.dumps(project['requires-python'])}",
            f"dependencies = {json.dumps([*project['dependencies'], *build])}",
            "[project.optional-dependencies]",
            *(f"{name} = {json.dumps(needs)}" for name, needs in extras.items()),
            "[tool.uv]",
            "package = false",
            'fork-strategy = "fewest"',
            f"environments = {json.dumps(MACHINES)}",
            f"constraint-dependencies = {json.dumps(kept)}",
            f"override-dependencies = {json.dumps(left_out)}",
        ]
    )


def _needs(folder: Path, extras: Sequence[str]) -> dict[str, str]:
    """Package → its line with hashes, of everything that the extras need."""
    wanted = [argument for extra in extras for argument in ("--extra", extra)]
    plain = ("--frozen", "--no-emit-project", "--no-header", "--no-annotate", "--format", "requirements.txt")
    text = _uv(folder, "export", *plain, *wanted).replace(f" ; {_ALWAYS}", "").replace(f" and ({_ALWAYS})", "")
    return {line.split("==")[0]: line for line in re.split(r"\n(?=\S)", text.strip())}


def _uv(folder: Path, *arguments: str) -> str:
    # No setting of this machine has a say: the same pyproject.toml gives the same files everywhere.
    command = [str(UV), *arguments, "--no-config"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"uv {arguments[0]} failed; UPGRADE=NAME of a package that is in the way, or UPGRADE=all, frees pins")
    return done.stdout


if __name__ == "__main__":
    main()
