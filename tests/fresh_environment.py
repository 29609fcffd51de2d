"""At the end of the tests every package that they built is verified once more, where only a device's libraries are.

`model-export build` writes its provenance beside each package, so the packages are found by that, whoever built them
and in whichever process; one that a test has changed since is not the one that was built, and is left out. They are
verified in one fresh virtual environment with the extra ``[agent]`` alone: one by its own command, then all of them in
one process; what needs processing inside the graph after ``[processing]`` was added. It is made beside the first tests.

On with ``EDGELOOP_FRESH=1``, which `make test` sets; a few tests by themselves need not wait for an environment.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgeloop.package import Index, PackageError

CHECKOUT = Path(__file__).resolve().parents[1]
#: What pip says where no index of packages can be reached: then there is nothing to be learnt here.
OFFLINE = ("Failed to establish", "Temporary failure", "Connection", "timed out", "unreachable", "ProxyError")
#: Of the checkout: what is installed.
INSTALLED = ("edgeloop", "edge_agent", "cloud_hub", "model_export")
SUFFIX = ".provenance.json"
MOST_S = 300.0


class Offline(Exception):
    """No index of packages can be reached."""


class FreshEnvironment:
    """A virtual environment of its own, made on a thread."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgeloop-fresh-"))
        self.python = self.folder / "venv" / "bin" / "python"
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._make, name="fresh environment", daemon=True)
        self._thread.start()

    def ready(self) -> None:
        """Wait until it is there; raises what went wrong."""
        self._thread.join(MOST_S)
        if self._thread.is_alive():
            raise Offline(f"an environment took longer than {MOST_S:.0f} s")
        if self._error is not None:
            raise self._error

    def install(self, *arguments: str) -> None:
        """Have pip install something, from files with hashes."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-compile"]
        done = subprocess.run(
            [*pip, "--disable-pip-version-check", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )
        if done.returncode:
            said = done.stderr.strip()
            raise (Offline if any(word in said for word in OFFLINE) else AssertionError)(said[-1500:])

    def close(self) -> None:
        """Remove it."""
        self._thread.join(MOST_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self) -> None:
        try:
            subprocess.run(
                [sys.executable, "-m", "venv", "--without-pip", str(self.folder / "venv")],
                check=True,
                capture_output=True,
            )
            self.install("--require-hashes", "-r", str(CHECKOUT / "requirements" / "agent.txt"))
            source = self.folder / "source"
            source.mkdir()
            for name in INSTALLED:
                shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copyfile(CHECKOUT / name, source / name)
            # The tools that build it are in the environment: they are locked, too.
            done = subprocess.run(
                [self.python, "-c", _BUILD, str(source), str(self.folder)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr[-1500:]
            (wheel,) = self.folder.glob("*.whl")
            self.install("--no-deps", str(wheel))
        except BaseException as error:
            self._error = error


_BUILD = """
import os, sys
os.chdir(sys.argv[1])
from setuptools import build_meta
build_meta.build_wheel(sys.argv[2])
"""


def built_packages(folder: Path) -> dict[str, Path]:
    """Digest → one place of every package below a folder that `model-export build` made and nobody has changed."""
    found: dict[str, Path] = {}
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not Path(above, name).is_symlink()]
        for name in files:
            if name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in folders:
                package = Path(above, name.removesuffix(SUFFIX))
                with suppress(OSError, ValueError, KeyError, IndexError, TypeError, PackageError):
                    said = json.loads(base64.b64decode(json.loads(Path(above, name).read_bytes())["payload"]))
                    digest = f"sha256:{said['subject'][0]['digest']['sha256']}"
                    if digest not in found and Index.of_folder(package).digest == digest:
                        found[digest] = package
    return found


class Verified:
    """What came of all packages."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bad: list[str] = []

    def run(self, environment: FreshEnvironment, packages: dict[str, Path]) -> None:
        """Verify them: the first by the command, then each in one process; those with processing after the others."""
        environment.ready()
        first = next(iter(packages.values()))
        command = [str(environment.python.parent / "model-export"), "verify", str(first), "--json"]
        done = _outside(environment, command)
        if done.returncode:
            self.bad.append(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-1000:]}")
        plain = {digest: path for digest, path in packages.items() if not needs_processing(path)}
        self._all(environment, plain, "[agent]")
        rest = {digest: path for digest, path in packages.items() if digest not in plain}
        if rest:
            environment.install("--require-hashes", "-r", str(CHECKOUT / "requirements" / "processing.txt"))
            self._all(environment, rest, "[agent,processing]")

    def _all(self, environment: FreshEnvironment, packages: dict[str, Path], extras: str) -> None:
        paths = [str(path) for path in packages.values()]
        script = Path(__file__).parent / "doubles" / "verify_them_all.py"
        done = _outside(environment, [str(environment.python), str(script), *paths])
        found: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        self.bad += [f"{one['package']}: {one['reason']}" for one in found if one["reason"]]
        if done.returncode or len(found) != len(paths):
            self.bad.append(f"{len(found)} of {len(paths)} were verified: {done.stderr[-1500:]}")
        elsewhere = sum(one["elsewhere"] for one in found)
        told = f", {elsewhere} of them for providers that are not here" if elsewhere else ""
        self.lines.append(f"{len(found)} packages verified with {extras} alone, and loaded by onnxruntime alone{told}")


def needs_processing(package: Path) -> bool:
    """Whether a graph of a package has operators of onnxruntime-extensions."""
    import onnx

    graphs = (onnx.load(path, load_external_data=False) for path in package.glob("*/*.onnx"))
    return any(
        opset.domain in ("ai.onnx.contrib", "com.microsoft.extensions")
        for graph in graphs
        for opset in graph.opset_import
    )


def _outside(environment: FreshEnvironment, command: list[str]) -> subprocess.CompletedProcess[str]:
    """A program that sees nothing of this checkout, nor of this environment."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        command, capture_output=True, text=True, env=own, cwd=environment.folder, timeout=MOST_S, check=False
    )


# ── pytest ───────────────────────────────────────────────────────────────────────────────────────

_ENVIRONMENT = pytest.StashKey[FreshEnvironment]()
_VERIFIED = pytest.StashKey[Verified]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin with the environment, in the process that directs the others."""
    if os.environ.get("EDGELOOP_FRESH") and not hasattr(session.config, "workerinput"):
        session.config.stash[_ENVIRONMENT] = FreshEnvironment()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Verify what is there; it fails the run as a test does."""
    environment = session.config.stash.get(_ENVIRONMENT, None)
    if environment is None:
        return
    verified = session.config.stash[_VERIFIED] = Verified()
    try:
        packages = built_packages(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
        if packages:
            verified.run(environment, packages)
        else:
            verified.lines.append("no test has built a package")
    except Offline as error:
        verified.lines.append(f"SKIPPED: no environment could be made, it needs an index of packages: {error}")
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        verified.bad.append(f"{type(error).__name__}: {error}")
    finally:
        environment.close()
    if verified.bad and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what came of it."""
    verified = config.stash.get(_VERIFIED, None)
    if verified is None:
        return
    terminalreporter.section("packages in a fresh environment")
    for line in verified.lines:
        terminalreporter.line(line)
    for line in verified.bad:
        terminalreporter.line(f"FAILED {line}", red=True)
