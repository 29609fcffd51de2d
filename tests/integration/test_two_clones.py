"""Two people build the same model on two machines that agree in nothing else: the digest is the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import joblib
import onnx

from tests.doubles import digits
from tests.doubles.packages import make_model

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = ("edgeloop", "model_export", "tests")

#: What a person has on the import path.
FACTORIES = """
def torch_network():
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
"""

#: All builds in one process: what takes the time is importing.
BUILD = """
import json, sys
from pathlib import Path
from model_export import build
import model_export

found = {}
options = {"reproducible": True, "precision": ("fp32", "int8"), "trust_source": True}
for name, source in json.loads(sys.argv[2]).items():
    report = build(source, Path(sys.argv[1], name), Path("digits.npz"), **options)
    found[name] = [report.digest, sorted(report.metrics)]
print(json.dumps({"from": model_export.__file__, "found": found}))
"""


def clone(folder: Path) -> Path:
    """A copy of what is imported, without byte code."""
    for part in PARTS:
        shutil.copytree(CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def build(folder: Path, work: Path, sources: dict[str, str], umask: int, **environment: str) -> subprocess.Popen[str]:
    """The builds of one person, under way."""
    (work / "factories.py").write_text(FACTORIES)
    out = work / "out"
    out.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(out), json.dumps(sources)],
        cwd=work,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{work}", **environment},
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_sources(work: Path) -> dict[str, str]:
    """The same files for both people: name of a build → its source."""
    digits.write_data(work)
    # Fitted once: what training makes of several threads is not what this is about.
    joblib.dump(digits.classifier(), work / "network.joblib")
    onnx.save(make_model(), work / "model.onnx")
    sources = {"network": "network.joblib", "onnx": "model.onnx"}
    # PyTorch's exporter takes ten times as long as everything else here.
    soak = os.environ.get("EDGELOOP_SOAK") and find_spec("torch")
    return sources | ({"torch": "factories:torch_network"} if soak else {})


def test_two_clones_build_the_same_bytes(tmp_path: Path) -> None:
    people = []
    for folder, umask, environment in (
        (
            tmp_path / "one",
            0o022,
            {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "UTC", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        ),
        (
            tmp_path / "another person's folder" / "déjà vu" / "deep",
            0o077,
            {"PYTHONHASHSEED": "31337", "LC_ALL": "C.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONUTF8": "1", "USER": "ada"},
        ),
    ):
        copy = clone(folder / "clone")
        work = folder / "work"
        work.mkdir()
        sources = write_sources(work)
        process = build(copy, work, sources, umask, **environment)
        people.append((copy, process))
    told = []
    for copy, process in people:
        out, err = process.communicate(timeout=280)
        assert process.returncode == 0, err
        answer = json.loads(out.splitlines()[-1])
        assert answer["from"].startswith(str(copy))
        told.append(answer["found"])
    assert set(told[0]) == set(sources)
    assert told[0] == told[1], {
        name: (told[0][name], told[1][name]) for name in sources if told[0][name] != told[1][name]
    }
