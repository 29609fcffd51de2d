"""Graphs of every kind of variant, made for an older ONNX Runtime, are loaded and run by that very release.

Wheels of onnxruntime overwrite one another, so each release has an environment of its own, which is made once and kept
in the cache of `benchmarks.kit.environments` (25 MB to fetch, 100 MB on the disk).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.kit.environments import CACHE, InstallError, environment
from model_export.data import Table
from model_export.graphs.measure import non_finite
from model_export.graphs.opsets import limits_of
from model_export.graphs.probe import Probe
from model_export.prepare import Prepared, prepare
from model_export.sources import open_source
from model_export.variants.maker import Maker
from model_export.variants.recipes import Int4Options, Int8Options, VariantRecipe
from tests.unit.export import networks

WANTED = "EDGELOOP_OLD_RUNTIMES"
#: Releases that the table of operators was made from.
RELEASES = ["1.15.1", "1.16.3", "1.17.3"]
ANYWHERE = [
    VariantRecipe("fp32"),
    VariantRecipe("fp32", fused=True),
    VariantRecipe("fp16"),
    VariantRecipe("fp16", fused=True),
    VariantRecipe("int8", int8=Int8Options()),
    VariantRecipe("int8", int8=Int8Options(), fused=True),
    VariantRecipe("int8", int8=Int8Options(dynamic=True), fused=True),
    VariantRecipe("int8", int8=Int8Options("u8u8", per_channel=False, dynamic=True, embeddings=True)),
]
INT4 = [VariantRecipe("int4", int4=Int4Options(16)), VariantRecipe("int4", int4=Int4Options(16, 0), fused=True)]
#: Runs each graph of a folder on its rows, and writes what it gives.
CHILD = r"""
import sys
from pathlib import Path
import numpy as np
import onnxruntime as ort

assert ort.__version__ == sys.argv[1]
folder = Path(sys.argv[2])
rows = np.load(folder / "rows.npy")
for file in sorted(folder.glob("*.onnx")):
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    np.savez(file.with_suffix(".npz"), **dict(zip(names, session.run(names, {"input_ids": rows}))))
"""


@pytest.fixture(scope="module", name="prepared")
def prepared_once() -> Prepared:
    table = Table({"input_ids": networks.sentences(96)}, networks.classes(96), "data.npz", "")
    return prepare(open_source(networks.transformer(), table), table, labels=None, given={})


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_runs_what_is_made_for_it(release: str, prepared: Prepared, tmp_path: Path) -> None:
    name = f"onnxruntime-{release}"
    if not os.environ.get(WANTED) and not (CACHE / name).is_dir():
        pytest.skip(f"set {WANTED}=1 to have onnxruntime {release} installed in {CACHE / name}")
    try:
        python = environment(name, [f"onnxruntime=={release}", "numpy<2"])
    except InstallError as error:
        pytest.skip(f"onnxruntime {release} cannot be installed: {error}")
    maker = Maker(prepared, {n: array[:32] for n, array in prepared.rows.items()}, limits=limits_of(release))
    made = {str(i): maker.graph(recipe) for i, recipe in enumerate([*ANYWHERE, *(INT4 if maker.four_bits else [])])}
    rows = prepared.rows["input_ids"][:16]
    np.save(tmp_path / "rows.npy", rows)
    for graph, model in made.items():
        onnx.save(model, tmp_path / f"{graph}.onnx")
    done = subprocess.run(
        [str(python), "-c", CHILD, release, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    for graph, model in made.items():
        ours = Probe(model).run({"input_ids": rows})
        with np.load(tmp_path / f"{graph}.npz") as theirs:
            assert not non_finite(dict(theirs))
            assert (theirs[prepared.scores].argmax(axis=1) == ours[prepared.scores].argmax(axis=1)).mean() >= 0.9, graph
