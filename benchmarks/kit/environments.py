"""Virtual environments that benchmarks make and keep outside the checkout: one for the agent, one for each peer.

They lie in ``~/.cache/edgeloop-bench``, or where ``EDGELOOP_BENCH_CACHE`` says. Each is made once and made again when
what it is made from has changed; nothing of it is shared with the environment of the benchmark itself, so that neither
versions nor pages of memory mix.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("EDGELOOP_BENCH_CACHE", "~/.cache/edgeloop-bench")).expanduser()
#: What `pip` needs of the checkout. It is copied: a build in the checkout would leave its own folders there.
_SOURCES = ("edgeloop", "edge_agent", "cloud_hub", "model_export", "pyproject.toml", "README.md", "LICENSE")
_INSTALL_TIMEOUT_S = 1800.0


class InstallError(Exception):
    """An environment cannot be made; the message is one line that says why."""


def environment(name: str, requirements: Sequence[str]) -> Path:
    """An environment that has the requirements; returns its Python.

    Raises:
        InstallError: `pip` refused.
    """
    return _made(name, "\n".join([*requirements, sys.version]), requirements)


def agent_environment(extras: str = "agent") -> Path:
    """An environment on which this checkout is installed as a device installs it; returns its Python.

    Raises:
        InstallError: `pip` refused.
    """
    locks = [ROOT / "requirements" / f"{extra}.txt" for extra in extras.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        for source in _SOURCES:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, Path(temporary, source), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, temporary)
        recipe = "\n".join([sys.version, *(lock.read_text() for lock in locks)])
        hashed = ["--require-hashes", *(argument for lock in locks for argument in ("-r", str(lock)))]
        python = _made(f"edgeloop-{extras.replace(',', '-')}", recipe, hashed)
        # What it depends on is there; the code may be newer.
        _pip(python, ["--no-deps", "--no-build-isolation", "--force-reinstall", temporary])
    return python


def site_packages(python: Path) -> Path:
    """Where an environment keeps what is installed in it."""
    (found,) = python.parents[1].glob("lib/python3*/site-packages")
    return found


def _made(name: str, recipe: str, arguments: Sequence[str]) -> Path:
    folder = CACHE / name
    stamp, python = folder / "made-from", folder / "bin" / "python"
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"installing {name} in {folder} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _pip(python, arguments)
    stamp.write_text(digest)
    return python


def _pip(python: Path, arguments: Sequence[str]) -> None:
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments])


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in (error.stderr or error.stdout).splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "nothing was said")
        raise InstallError(f"{' '.join(command[1:4])}: {said[:300]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{' '.join(command[1:4])}: {error}"[:300]) from error
