from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_export.errors import UnsupportedModelError
from model_export.graphs.roles import assign

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
    with pytest.raises(UnsupportedModelError, match="no output is named c"):
        assign(outputs, {"c": "logits"})
