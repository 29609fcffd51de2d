"""The example of a training program with PyTorch, as the hub starts it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cloud_hub.programs import TrainingProgram
from cloud_hub.training.command_trainer import CommandTrainer
from edgeloop.package import Package
from tests.doubles.digits import splits
from tests.doubles.sampled import Sampled
from tests.integration.digits_package import digits_package
from tests.integration.test_command_trainer import job

__all__ = ["digits_package"]
pytest.importorskip("torch", reason="PyTorch is an optional extra: make test EXTRAS=dev,torch")
pytest.importorskip("onnxscript", reason="PyTorch is an optional extra: make test EXTRAS=dev,torch")


@pytest.mark.timeout(900)
def test_a_network_is_fine_tuned_and_keeps_its_form(package: Package, tmp_path: Path) -> None:
    test = splits().test
    turned = np.rot90(test.x.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
    example = Path(__file__).resolve().parents[2] / "examples" / "finetune_torch" / "__main__.py"
    program = TrainingProgram(command=(sys.executable, str(example)), spare_bytes=0, parameters={"epochs": 20})
    said: list[tuple[str, float | None]] = []
    trainer = CommandTrainer({"ridge": program}, Sampled(turned, test.y))
    made = trainer.train(job(package, tmp_path / "run", said=said))
    assert made.evidence.candidate_accuracy is not None and made.evidence.current_accuracy is not None
    assert made.evidence.candidate_accuracy > 0.85 > 0.5 > made.evidence.current_accuracy
    assert made.package.meta.head is not None and made.package.meta.outputs == package.meta.outputs
    assert list(made.package.variants) == list(package.variants)
    assert made.facts["result"] is not None and any(line.startswith("epoch 20: loss") for line, _ in said)
