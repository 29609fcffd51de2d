"""Olive's automatic search: ``OnnxQuantization`` with all that it can search, the fastest within an accuracy goal.

The configuration is what Olive's documentation shows for an ONNX model on a processor (how-to/configure-workflows and
reference/options), run by its Python interface. Its default calibration fetches a dataset from a hub: here the
benchmark's rows are registered in its place.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

#: Rows that show the ranges of the activations; accuracy is judged on the others.
ROWS = 256
#: Points of its search (of 96) that are looked at: as many as `model-export build --tune` tries; and seconds after
#: which no further one is begun. Olive counts points that it refuses, and has no bound by default. Its documentation's
#: example has `max_samples` 5, which Olive 0.13 loses, as all of a sampler's settings: pydantic writes a field of type
#: ConfigBase without what a subclass has. `max_iter` and `max_time` are documented too, and hold.
TRIALS, LIMIT_S = 40, 600
#: Absolute, on the rows that judge: what everybody may give up.
ACCURACY_DROP = 0.01
#: Calls that a latency is the median of. Olive's own 20 would let noise decide.
CALLS = 100


class Rows:
    """Some rows of an .npz, as Olive takes a dataset: pairs of inputs by name and label."""

    def __init__(self, path: str, part: slice) -> None:
        with np.load(path) as given:
            self.label = given["label"][part]
            self.inputs = {name: given[name][part] for name in given.files if name != "label"}

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, row: int) -> tuple[dict[str, Any], Any]:
        return {name: rows[row] for name, rows in self.inputs.items()}, self.label[row]


def calibration_rows(data_dir: str, **_: object) -> Rows:
    """The first rows of the .npz, for Olive's registry."""
    return Rows(data_dir, slice(ROWS))


def judging_rows(data_dir: str, **_: object) -> Rows:
    """The rest of it."""
    return Rows(data_dir, slice(ROWS, None))


def most_probable(output: Any, **_: object) -> Any:
    """The class of each row; trees have an output beside the probabilities."""
    return (output["probabilities"] if isinstance(output, dict) else output).argmax(1)


def workflow(model: str, folder: Path, passes: dict[str, Any]) -> dict[str, Any]:
    """What every configuration of ``olive run`` has here."""
    accelerator = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "input_model": {"type": "ONNXModel", "model_path": model},
        "systems": {"processor": {"type": "LocalSystem", "accelerators": [accelerator]}},
        "host": "processor",
        "target": "processor",
        "passes": passes,
        "cache_dir": str(folder / "cache"),
        "output_dir": str(folder / "output"),
    }


def fusion(model: str, folder: Path) -> dict[str, Any]:
    """What Olive's example of a BERT does before it quantizes.

    A run of its own: in a search over both, Olive 0.13 fails at every trial but the first, when it takes this model
    from its cache (``"FootprintNode" object has no field "model_config"``).
    """
    return workflow(model, folder, {"fusion": {"type": "OrtTransformersOptimization", "model_type": "bert"}})


def search(model: str, data: str, folder: Path) -> dict[str, Any]:
    """The search itself."""
    accuracy = {
        "name": "accuracy_score",
        "priority": 2,
        "metric_config": {"task": "multiclass", "num_classes": int(Rows(data, slice(None)).label.max()) + 1},
        "goal": {"type": "max-degradation", "value": ACCURACY_DROP},
    }
    latency = {"name": "p50", "priority": 1, "metric_config": {"repeat_test_num": CALLS}}
    metrics = [
        {"name": "accuracy", "type": "accuracy", "data_config": "judging", "sub_types": [accuracy]},
        {"name": "latency", "type": "latency", "data_config": "one_row", "sub_types": [latency]},
    ]
    # Prepared as all its examples have it: most that is not fails, where transformers were fused.
    quantization = {"type": "OnnxQuantization", "data_config": "calibration", "quant_preprocess": True}
    return workflow(model, folder, {"quantization": quantization}) | {
        "data_configs": [
            rows_of("calibration", "calibration_rows", data, 1),
            rows_of("judging", "judging_rows", data, 32),
            rows_of("one_row", "judging_rows", data, 1),
        ],
        # Without a type, Olive 0.13 takes the evaluator for a file of type None, and ends.
        "evaluators": {"judge": {"type": "OnnxEvaluator", "metrics": metrics}},
        "evaluator": "judge",
        "search_strategy": {"execution_order": "joint", "sampler": "tpe", "max_iter": TRIALS, "max_time": LIMIT_S},
    }


def rows_of(name: str, dataset: str, data: str, batch: int) -> dict[str, Any]:
    """A data configuration."""
    return {
        "name": name,
        "type": "DataContainer",
        "load_dataset_config": {"type": dataset, "data_dir": data},
        "post_process_data_config": {"type": "most_probable"},
        "dataloader_config": {"batch_size": batch},
    }


class LastError(logging.Handler):
    """Olive catches what goes wrong in a run and goes on; this keeps the last of it."""

    said = "no error was logged"

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        if record.exc_info and record.exc_info[1] is not None:
            self.said = " ".join(repr(record.exc_info[1]).split())


if __name__ == "__main__":
    model, data, output = (str(Path(path).absolute()) for path in sys.argv[1:])
    # Its heartbeat goes out before it looks at its own switch, unless it takes this for a CI run.
    os.environ |= {"OLIVE_DISABLE_TELEMETRY": "1", "CI": "1", "HF_HUB_OFFLINE": "1"}
    from olive import run
    from olive.data.registry import Registry

    for dataset in (calibration_rows, judging_rows):
        Registry.register_dataset()(dataset)
    Registry.register_post_process()(most_probable)
    error = LastError()
    logging.getLogger("olive").addHandler(error)
    with tempfile.TemporaryDirectory() as folder:
        # Olive cannot tell that an ONNX file is a BERT: its user can.
        if "attention_mask" in Rows(data, slice(1)).inputs:
            model = run(fusion(model, Path(folder, "fused"))).get_best_candidate().model_path
        found = run(search(model, data, Path(folder, "searched")))
        best = found.get_best_candidate()
        if best is None:
            judged = [node for node in found.footprint.nodes.values() if node.metrics and node.parent_model_id]
            sys.exit(f"it judged {len(judged)} models, none within {ACCURACY_DROP} of the accuracy; {error.said}")
        print(best.metrics_value)
        shutil.move(best.model_path, output)
