"""The example of a training program with transformers and optimum, on a tiny network of tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from edgeloop.package import audit_model_in_child

ROOT = Path(__file__).parents[2]
transformers = pytest.importorskip(
    "transformers", reason="pip install -r examples/finetune_huggingface/requirements.txt"
)
pytest.importorskip("optimum.exporters.onnx", reason="pip install -r examples/finetune_huggingface/requirements.txt")

WORDS, LENGTH = 20, 8


@pytest.mark.timeout(900)
def test_a_text_classifier_is_fine_tuned_and_exported(tmp_path: Path) -> None:
    """Whether a token is in the text, or another one: two classes that a tiny network learns."""
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "start")
    random = np.random.default_rng(0)
    tokens = random.integers(2, WORDS, (200, LENGTH))
    labels = random.integers(0, 2, 200)
    tokens[np.arange(200), random.integers(0, LENGTH, 200)] = labels
    names = ("input_ids", "attention_mask", "token_type_ids")
    arrays = dict(zip(names, (tokens, np.ones_like(tokens), np.zeros_like(tokens)), strict=True))
    for folder in ("data", "output", "checkpoints", "work"):
        (tmp_path / folder).mkdir()
    columns = {n: pa.FixedSizeListArray.from_arrays(pa.array(a.ravel()), LENGTH) for n, a in arrays.items()}
    table = pa.table({**columns, "label": labels, "weight": np.ones(200)})
    parquet.write_table(table, tmp_path / "data" / "training.parquet")
    told = {
        "data": str(tmp_path / "data"),
        "output": str(tmp_path / "output" / "model.onnx"),
        "checkpoints": str(tmp_path / "checkpoints"),
        "parameters": {"checkpoint": str(tmp_path / "start"), "epochs": 24, "rate": 0.01},
        "seed": 1,
        "labels": ["a", "b"],
        "inputs": [{"name": name, "datatype": "INT64", "shape": [-1, LENGTH]} for name in names],
    }
    (tmp_path / "job.json").write_text(json.dumps(told))
    environment = {**os.environ, "EDGELOOP_JOB": str(tmp_path / "job.json"), "HOME": str(tmp_path / "work")}
    command = [sys.executable, str(ROOT / "examples" / "finetune_huggingface" / "__main__.py")]
    done = subprocess.run(
        command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = next(line for line in done.stdout.splitlines() if line.startswith("result "))
    assert float(result.split()[1]) > 0.8 and "progress 1.000 epoch 24 of 24" in done.stdout
    audit_model_in_child(tmp_path / "output" / "model.onnx")
