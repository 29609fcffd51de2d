"""The graphs that come before a model: pictures against Pillow, texts against a tokenizer of a few lines, tables."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from edgeloop.pictures import Fit, middle
from edgeloop.runtime import extensions
from model_export.graphs.probe import Probe
from model_export.processing.columns import column_pieces
from model_export.processing.image import OPSET, image_pieces
from model_export.processing.steps import ColumnSteps, ImageSteps, TextSteps
from model_export.processing.text import text_pieces
from tests.doubles.processed import VOCABULARY

Image: Any = pytest.importorskip("PIL.Image", reason="pip install 'edgeloop[pictures]'")

STEPS = {
    "crop": ImageSteps(32, 24),
    "crop of more": ImageSteps(24, 32, shorter=40, resample="cubic", mean=(0.5, 0.4, 0.3), std=(0.2,), colours="bgr"),
    "stretch": ImageSteps(16, 16, fit="stretch", colours="grey", layout="NHW"),
    "nearest": ImageSteps(16, 16, resample="nearest", layout="NHWC", scale=1),
    "flat": ImageSteps(8, 8, colours="grey", layout="flat"),
}


def by_pillow(pixels: Any, steps: ImageSteps) -> Any:
    """What the graph has to give of one picture, by Pillow and numpy."""
    height, width = steps.covered
    fit = Fit(width, height, steps.fit == "crop")
    filters = {"nearest": Image.NEAREST, "linear": Image.BILINEAR, "cubic": Image.BICUBIC}
    picture = Image.fromarray(pixels).crop(middle(pixels.shape[1], pixels.shape[0], fit))
    picture = picture.resize((width, height), filters[steps.resample])
    left, top = (width - steps.width) // 2, (height - steps.height) // 2
    picture = picture.crop((left, top, left + steps.width, top + steps.height))
    found = np.asarray(picture.convert("L") if steps.colours == "grey" else picture).astype(np.float32)
    found = found.reshape(steps.height, steps.width, -1)
    found = (found[:, :, ::-1] if steps.colours == "bgr" else found) * np.float32(steps.scale)
    found = (found - np.float32(steps.mean or 0)) / np.float32(steps.std or 1)
    laid = {"NCHW": found.transpose(2, 0, 1), "NHWC": found, "NHW": found[:, :, 0], "flat": found.reshape(-1)}
    return laid[steps.layout]


@pytest.mark.parametrize("name", STEPS)
def test_pictures_become_what_pillow_makes_of_them(name: str) -> None:
    steps = STEPS[name]
    graph = Probe(image_pieces(steps, "y", TensorProto.FLOAT).model(OPSET))
    chance = np.random.default_rng(5)
    for height, width in ((64, 48), (120, 160), (33, 333), (1, 500), (500, 1), steps.covered):
        coarse = Image.fromarray(chance.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
        one = np.asarray(coarse.resize((width, height), Image.BICUBIC))
        rows = np.stack([one, one[::-1], np.zeros_like(one)])
        found = graph.run({"image": rows})["y"]
        of_one_step = steps.scale / (steps.std[0] if steps.std else 1)
        for row, got in zip(rows, found, strict=True):
            apart = np.abs(got - by_pillow(row, steps)) / of_one_step
            assert apart.mean() < 2.0, (height, width)
        if (height, width) == steps.covered:
            assert apart.max() < 1.01


def test_bytes_stay_bytes_for_a_model_that_takes_them() -> None:
    pieces = image_pieces(ImageSteps(8, 8, scale=1, layout="NHWC"), "y", TensorProto.UINT8)
    rows = np.random.default_rng(1).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Probe(pieces.model(OPSET)).run({"image": rows})["y"], rows)


def pieces_of_words(text: str, steps: TextSteps) -> list[str]:
    """WordPiece as BERT has it, in a few lines."""
    text = text.lower() if steps.lowercase else text
    if steps.strip_accents:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    found = [steps.start]
    for word in re.findall(r"\w+|[^\w\s]", text):
        parts, rest = [], word
        while rest:
            lead = "##" if parts else ""
            size = next((n for n in range(len(rest), 0, -1) if lead + rest[:n] in steps.vocabulary), 0)
            if not size:
                parts.append(steps.unknown)  # BERT's own would give up the word's other pieces as well
                break
            parts.append(lead + rest[:size])
            rest = rest[size:]
        found += parts
    return [*found[: steps.max_length - 1], steps.end]


TEXTS = [
    "Rains and winds today!",
    "",
    "the the the the the the the the the the the the",
    "profits, taxes. LOAN",
    "Snöw é today",
    "zebra rain",
    "\t rain \n sun\r",
]


@pytest.mark.skipif(extensions.library() is None, reason="pip install 'edgeloop[processing]'")
@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("lowercase", [True, False])
def test_texts_become_the_numbers_of_their_pieces(trim: bool, lowercase: bool) -> None:
    steps = TextSteps(VOCABULARY, max_length=12, lowercase=lowercase)
    kinds = {steps.ids: TensorProto.INT64, steps.mask: TensorProto.INT32, steps.types: TensorProto.INT64}
    graph = Probe(text_pieces(steps, kinds, trim=trim).model(17))
    found = graph.run({"text": np.array(TEXTS, object)})
    assert found[steps.mask].dtype == np.int32
    expected = [pieces_of_words(text, steps) for text in TEXTS]
    assert found[steps.ids].shape == (len(TEXTS), max(map(len, expected)) if trim else 12)
    for row, pieces in enumerate(expected):
        numbers = [VOCABULARY.index(piece) for piece in pieces]
        assert found[steps.ids][row, : len(pieces)].tolist() == numbers, TEXTS[row]
        assert not found[steps.ids][row, len(pieces) :].any()  # [PAD] is the first of the vocabulary
        assert found[steps.mask][row].tolist() == [1] * len(pieces) + [0] * (found[steps.mask].shape[1] - len(pieces))
    assert not found[steps.types].any()


def test_columns_become_one_row() -> None:
    columns = (ColumnSteps("age", mean=40, std=2), ColumnSteps("work", categories=("a", "b", "c")), ColumnSteps("size"))
    graph = Probe(column_pieces(columns, "y", TensorProto.DOUBLE).model(13))
    rows = {
        "age": np.array([[42], [38], [40]], np.float32),
        "work": np.array([["c"], ["else"], ["a"]], object),
        "size": np.array([[1], [2], [3]], np.float32),
    }
    expected = [[1, 0, 0, 1, 1], [-1, 0, 0, 0, 2], [0, 1, 0, 0, 3]]
    found = graph.run(rows)["y"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)
