"""What `make` installs is what pyproject.toml asks for, and every file of it has a hash."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
#: A lock and the extras that it installs; `make` names one, or two of them with a comma.
EXTRAS = {
    "agent": ["agent"],
    "grpc": ["grpc"],
    "processing": ["processing"],
    "demo": ["demo"],
    "dev": ["dev"],
    "torch": ["dev", "torch", "huggingface"],
    "boosting": ["demo", "boosting"],
    "keras": ["demo", "keras"],
}
#: PyTorch alone has no hash: its file says why.
UNHASHED = LOCKS / "torch-itself.txt"
_PIN = re.compile(r"([a-z0-9-]+)==(\S+)( ; [^\\]+)? \\((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)")


@cache
def pins(name: str) -> dict[str, Version]:
    """Package → version of a lock, with what it includes; anything that is no pinned, hashed line is an error."""
    text, found = (LOCKS / f"{name}.txt").read_text(), dict[str, Version]()
    for include in re.findall(r"^-r (\w+)\.txt$", text, flags=re.M):
        found |= pins(include)
    for match in _PIN.finditer(text):
        assert match[1] not in found, f"{match[1]} is locked twice"
        found[match[1]] = Version(match[2])
    rest = _PIN.sub("", re.sub(r"^(# .*|-r \w+\.txt)$", "", text, flags=re.M))
    assert not rest.strip(), f"neither pinned nor hashed: {rest.strip()[:200]}"
    return found


@cache
def project() -> dict[str, list[str]]:
    """Extra → its requirements; ``""`` those of every extra, ``build`` those of the build."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional: dict[str, list[str]] = found["project"]["optional-dependencies"]
    return {**optional, "": found["project"]["dependencies"], "build": found["build-system"]["requires"]}


def wanted(extra: str) -> list[Requirement]:
    found = []
    for requirement in map(Requirement, project()[extra]):
        if requirement.name == "edgeloop":
            found += [inner for other in requirement.extras for inner in wanted(other)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_what_the_project_asks_for(name: str) -> None:
    locked = pins(name)
    unhashed = Requirement(UNHASHED.read_text().splitlines()[-1])
    locked |= {unhashed.name: Version(str(unhashed.specifier).removeprefix("=="))}
    for requirement in [r for extra in ("", "build", *EXTRAS[name]) for r in wanted(extra)]:
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in requirements/{name}.txt: make lock"
        assert version in requirement.specifier, f"{requirement} is locked at {version}: make lock"


def test_every_extra_of_the_project_is_locked() -> None:
    everything = {canonicalize_name(r.name) for extra in project() for r in wanted(extra)}
    assert everything - {"torch"} <= set().union(*(pins(name) for name in EXTRAS))


def test_a_lock_names_no_place_to_fetch_from() -> None:
    for file in LOCKS.glob("*.txt"):
        assert not re.search(r"://|--(extra-)?index-url|--find-links|^-[if] ", file.read_text(), flags=re.M), file.name


def test_make_installs_nothing_else(tmp_path: Path) -> None:
    """Each of make's installs takes hashes, or adds the project itself, or PyTorch."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed: apt-get install make")
    for target in ("demo", "test", "check", "bench", "soak", "test EXTRAS=dev,torch"):
        command = ["make", "-n", *target.split(), f"VENV={tmp_path / 'venv'}"]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        installs = [line for line in told.splitlines() if " pip install " in line]
        assert sum("--require-hashes -r requirements/" in line for line in installs) == 1, told
        for line in installs:
            assert re.search(r"--require-hashes|--no-deps --no-build-isolation -e \.$|torch-itself\.txt$", line)
