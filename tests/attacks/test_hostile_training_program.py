"""A training program leaves a model that is right in its form and never answers: building it ends in its time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from cloud_hub.training.bounded import ChildRunner, Limits
from cloud_hub.training.rebuilding import rebuild
from cloud_hub.training.trainer import TrainingError
from edgeloop.package import Package, audit_model_in_child
from tests.doubles.digits import build, splits
from tests.doubles.sampled import Sampled
from tests.doubles.training_program import model


@pytest.mark.skipif(not os.environ.get("EDGELOOP_SOAK"), reason="a minute of a busy processor: make soak")
def test_a_model_that_never_answers_is_ended(tmp_path: Path) -> None:
    build(tmp_path / "base")
    base, test = Package.open(tmp_path / "base"), splits().test
    Sampled(test.x, test.y).write(tmp_path / "dataset", channel="stable", base=base, since=None, until=0.0)
    (tmp_path / "left").mkdir()
    endless = tmp_path / "left" / "model.onnx"
    told = {"inputs": [{"name": base.meta.inputs[0].name}]}
    onnx.save(model(told, np.ones((64, 10)), np.zeros(10), endless=True), endless)
    audit_model_in_child(endless)
    said: list[str] = []
    with pytest.raises(TrainingError, match="model-export took longer than its 60 s"):
        rebuild(
            ChildRunner(),
            endless,
            base.root,
            tmp_path / "dataset",
            tmp_path / "package",
            version="2",
            lineage={},
            limits=Limits(60.0, spare_bytes=0, grace_s=0.2),
            say=said.append,
            stopped=lambda: False,
        )
    assert any("converting the model" in line for line in said)
    assert not (tmp_path / "package").exists()
