from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from model_export.data import Table
from model_export.errors import UnsupportedModelError
from model_export.graphs.roles import assign
from model_export.prepare import Prepared, prepare
from model_export.sources import open_source
from tests.unit.export.models import model, rows, weight

SCORES = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
PROBABILITIES = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
BEST = SCORES.argmax(axis=1)


@pytest.mark.parametrize(
    ("outputs", "roles"),
    [
        ({"p": PROBABILITIES}, {"p": "probabilities"}),
        ({"z": SCORES}, {"z": "logits"}),
        ({"z": SCORES, "p": PROBABILITIES}, {"z": "other", "p": "probabilities"}),
        ({"label": BEST, "p": PROBABILITIES}, {"label": "label", "p": "probabilities"}),
        ({"l": BEST[:, None] + 5, "p": PROBABILITIES}, {"l": "label", "p": "probabilities"}),
        ({"l": np.array(["a", "b", "c"])[BEST], "p": PROBABILITIES}, {"l": "label", "p": "probabilities"}),
        ({"l": 1 - (BEST > 0), "p": PROBABILITIES}, {"l": "other", "p": "probabilities"}),
        ({"embedding": SCORES[:, :2], "logits": SCORES}, {"embedding": "other", "logits": "logits"}),
        ({"version": BEST[BEST == 1] + 2, "z": SCORES[BEST == 1]}, {"version": "other", "z": "logits"}),
    ],
)
def test_roles_follow_from_the_values(outputs: dict[str, Any], roles: dict[str, str]) -> None:
    assert assign(outputs, {}) == roles


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": SCORES[:, :1]},
        {"y": SCORES[:, 0]},
        {"label": BEST},
        {"boxes": np.zeros((20, 4, 5), dtype=np.float32)},
    ],
)
def test_an_output_without_a_score_for_each_class_is_refused_with_what_to_do(outputs: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="no output gives a score") as caught:
        assign(outputs, {})
    assert "[N, classes]" in caught.value.hint


def test_the_person_decides_between_several_candidates() -> None:
    outputs = {"a": SCORES, "b": SCORES * 2}
    with pytest.raises(UnsupportedModelError, match="could each be") as caught:
        assign(outputs, {})
    assert "--role a=logits" in caught.value.hint
    assert assign(outputs, {"b": "logits"}) == {"b": "logits", "a": "other"}
    with pytest.raises(UnsupportedModelError, match="no probabilities"):
        assign(outputs, {"b": "probabilities"})
    with pytest.raises(UnsupportedModelError, match="no output is named c"):
        assign(outputs, {"c": "logits"})


def with_more_outputs() -> ModelProto:
    """Scores, a wide layer beside them, and a sequence of what that layer gives."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["scores"]),
        helper.make_node("MatMul", ["x", "wide"], ["embedding"]),
        helper.make_node("SequenceConstruct", ["embedding"], ["pieces"]),
    ]
    tensors = {"w": weight(4, 3), "wide": weight(4, 500)}
    made = model(nodes, {"scores": ["N", 3], "embedding": ["N", 500]}, tensors)
    made.graph.output.append(helper.make_tensor_sequence_value_info("pieces", TensorProto.FLOAT, ["N", 500]))
    return made


def prepared(**roles: str) -> Prepared:
    made, data = with_more_outputs(), Table({"x": rows(60)}, np.arange(60) % 3, "data.npz", "")
    return prepare(open_source(made, data), data, labels=None, given=roles)


def test_what_nobody_reads_is_left_out_with_all_that_it_alone_needs() -> None:
    kept = prepared(pieces="unused")
    assert kept.roles == {"scores": "logits", "embedding": "other", "features": "features"}
    assert any("--role embedding=unused spares" in note for note in kept.notes)
    spared = prepared(pieces="unused", embedding="unused")
    assert spared.roles == {"scores": "logits", "features": "features"}
    assert {tensor.name for tensor in spared.model.graph.initializer} == {"head.weight", "head.bias"}
    assert spared.notes[0].endswith("output embedding, pieces, and 2 of 3 operators")


def test_what_is_left_out_has_to_be_there_and_leave_something() -> None:
    with pytest.raises(UnsupportedModelError, match="output pieces is a sequence") as caught:
        prepared()
    assert "--role pieces=unused" in caught.value.hint
    with pytest.raises(UnsupportedModelError, match="no output is named nothing"):
        prepared(nothing="unused")
    with pytest.raises(UnsupportedModelError, match="no output would be left"):
        prepared(scores="unused", embedding="unused", pieces="unused")
