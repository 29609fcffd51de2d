"""Fine-tune a text classifier of Hugging Face on the fleet's labelled samples, and export it by optimum.

The release that is replaced was exported likewise, so its inputs are tokens: ``input_ids``, ``attention_mask``, … of
one length. The program needs nothing of edgeloop, and has an environment of its own (``requirements.txt``). In the
hub's settings; the checkpoint is a folder, or a name that this machine can fetch::

    [training_programs.texts]
    command = ["/opt/finetune/bin/python", "/opt/finetune/finetune_huggingface/__main__.py"]
    parameters = { checkpoint = "/opt/finetune/distilbert", epochs = 3, rate = 5e-5 }
    time_s = 7200
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.exporters.onnx import onnx_export_from_model
from pyarrow import parquet
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

#: Of every so many rows one is put aside: its accuracy is the result that a search of parameters goes by.
ASIDE = 5
BATCH = 16


def main() -> None:
    """Train, and leave the model."""
    job = json.loads(Path(os.environ["EDGELOOP_JOB"]).read_text())
    parameters = {"epochs": 3, "rate": 5e-5, **job["parameters"]}
    torch.manual_seed(job["seed"])
    torch.use_deterministic_algorithms(True)
    tokens, y, weight = read(job)
    aside = torch.arange(len(y)) % ASIDE == ASIDE - 1
    model = AutoModelForSequenceClassification.from_pretrained(
        _last(job) or parameters["checkpoint"], num_labels=len(job["labels"])
    )
    train(model, tokens, y, weight, (~aside).nonzero().flatten(), parameters, Path(job["checkpoints"]))
    print("result", accuracy(model, tokens, y, weight, aside.nonzero().flatten()))
    export(model, Path(job["output"]))


def read(job: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Tokens [N, L] by input, labels and weights [N]."""
    table = parquet.read_table(Path(job["data"], "training.parquet"))
    tokens = {}
    for told in job["inputs"]:
        column = table.column(told["name"]).combine_chunks()
        tokens[told["name"]] = torch.tensor(np.array(column.flatten(), dtype=np.int64).reshape(len(column), -1))
    weight = np.array(table.column("weight"), dtype=np.float32)
    return tokens, torch.tensor(np.array(table.column("label"))), torch.tensor(weight)


def train(
    model: Any,
    tokens: dict[str, Tensor],
    y: Tensor,
    weight: Tensor,
    rows: Tensor,
    parameters: dict[str, Any],
    kept: Path,
) -> None:
    """AdamW on the weighted rows; after each epoch the model is kept, for when the hub is started again."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=parameters["rate"])
    epochs = parameters["epochs"]
    for epoch in range(len(list(kept.glob("epoch-*"))), epochs):
        model.train()
        for batch in rows[torch.randperm(len(rows))].split(BATCH):
            logits = model(**{name: values[batch] for name, values in tokens.items()}).logits
            loss = functional.cross_entropy(logits, y[batch], reduction="none")
            optimiser.zero_grad()
            ((loss * weight[batch]).sum() / weight[batch].sum()).backward()
            optimiser.step()
        model.save_pretrained(kept / "new")
        (kept / "new").rename(kept / f"epoch-{epoch:04}")
        print(f"progress {(epoch + 1) / epochs:.3f} epoch {epoch + 1} of {epochs}")


def accuracy(model: Any, tokens: dict[str, Tensor], y: Tensor, weight: Tensor, rows: Tensor) -> float:
    """On some rows, by weight."""
    model.eval()
    with torch.no_grad():
        parts = [model(**{n: v[part] for n, v in tokens.items()}).logits.argmax(1) for part in rows.split(BATCH)]
    right = (torch.cat(parts) == y[rows]).double()
    return float((right * weight[rows]).sum() / weight[rows].sum())


def export(model: Any, output: Path) -> None:
    """Leave the model as ONNX: the inputs and the logits as optimum names them."""
    folder = Path("exported")
    onnx_export_from_model(model.eval(), folder, task="text-classification", do_validation=False)
    for path in folder.glob("model.onnx*"):
        shutil.move(path, output.parent / path.name)


def _last(job: dict[str, Any]) -> Path | None:
    return max(Path(job["checkpoints"]).glob("epoch-*"), default=None)


if __name__ == "__main__":
    main()
