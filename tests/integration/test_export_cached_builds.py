"""A build that was made before is made again in a moment, with the same digest; one that was killed goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import digits

#: What the model learns from is in a file beside it; each call leaves a line.
FACTORY = """
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

import helper

def make():
    with open("calls.txt", "a") as file:
        file.write("called\\n")
    model = LogisticRegression(max_iter=5)
    with np.load(Path(helper.__file__).with_name("train.npz")) as data:
        return model.fit(data["x"], data["label"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a factory, what it imports, and data."""
    folder = tmp_path_factory.mktemp("cached")
    digits.write_data(folder).rename(folder / "data.npz")
    (folder / "train.npz").write_bytes((folder / "data.npz").read_bytes())
    (folder / "factory.py").write_text(FACTORY)
    (folder / "helper.py").write_text("VALUE = 1\n")
    past = time.time() - 10
    for path in folder.glob("*.py"):
        os.utime(path, (past, past))
    return folder


def command(folder: Path, name: str) -> list[str]:
    program = "import sys; from model_export.cli import main; sys.argv[0] = 'model-export'; main()"
    plain = [
        "build",
        "factory:make",
        "-o",
        name,
        "--data",
        "data.npz",
        "--precision",
        "fp32",
        "--reproducible",
        "--json",
    ]
    return [sys.executable, "-c", program, *plain, "--cache", str(folder / "cache")]


def build(folder: Path, name: str) -> dict[str, Any]:
    done = subprocess.run(
        command(folder, name),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def calls(folder: Path) -> int:
    return len((folder / "calls.txt").read_text().splitlines())


def test_a_build_that_is_killed_goes_on_where_it_was_and_the_next_one_is_made_of_what_it_left(folder: Path) -> None:
    child = subprocess.Popen(
        command(folder, "one"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    for line in child.stderr:
        if "canonical" in line:  # the source is open, and nothing else is done
            child.send_signal(signal.SIGKILL)
            break
    child.wait()
    child.stderr.close()
    assert not (folder / "one").exists() and calls(folder) == 1

    first = build(folder, "one")
    assert not first["cached"] and calls(folder) == 1

    second = build(folder, "two")
    assert second["cached"] and calls(folder) == 1
    assert {**second, "path": "", "cached": False} == {**first, "path": "", "cached": False}
    assert (folder / "two.provenance.json").exists() and (folder / "two.sbom.json").exists()
