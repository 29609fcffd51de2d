"""Two small models with what comes before them: digits as pictures of 32 x 32, and sentences of two kinds.

Everything is made of scikit-learn's digits and of words in this file, and is the same at every run.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.doubles import digits

#: Of the pictures; the model sees 8 x 8.
SIDE = 32
PICTURES = 200
IMAGE_TOML = '[image]\nsize = 8\ncolours = "grey"\nlayout = "flat"\n'

WEATHER = ("rain", "sun", "wind", "snow", "cloud", "storm", "warm", "cold")
MONEY = ("bank", "price", "market", "loan", "share", "profit", "tax", "coin")
FILLING = ("the", "a", "today", "and", "is", "was", "very", "much", "of", "##s", "##y", ".", ",", "!")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLING, *WEATHER, *MONEY)
TEXT_TOML = '[text]\nvocabulary = "vocab.txt"\nmax_length = 16\ncolumn = "sentence"\n\n[output]\nsoftmax = true\n'
KINDS = ("weather", "money")


def picture(row: npt.NDArray[np.float32], form: str = "JPEG", side: int = SIDE) -> bytes:
    """A digit, float [64] in 0…1, as a file."""
    from PIL import Image

    pixels = Image.fromarray((row.reshape(8, 8) * 255).astype(np.uint8)).convert("RGB")
    file = io.BytesIO()
    # Blocks: the mean of each is the digit's own pixel again.
    pixels.resize((side, side), Image.Resampling.NEAREST).save(
        file, form, **({"quality": 95} if form == "JPEG" else {})
    )
    return file.getvalue()


def write_pictures(folder: Path, count: int = PICTURES) -> Path:
    """A folder of pictures for each class, PNG and JPEG in turn."""
    rows = digits.splits().validation
    for number, (row, label) in enumerate(zip(rows.x[:count], rows.y[:count], strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        form = ("JPEG", "PNG")[number % 2]
        (place / f"{number:03}.{form.lower()}").write_bytes(picture(row, form))
    return folder


def sentence(kind: int, number: int) -> str:
    """A sentence about weather (0) or money (1)."""
    words = np.random.default_rng([kind, number])
    about, others = (WEATHER, MONEY)[kind], (WEATHER, MONEY)[1 - kind]
    chosen = [*words.choice(about, 3), *words.choice(FILLING[:9], 4), *words.choice(others, int(number % 4 == 0))]
    words.shuffle(chosen)
    text = " ".join(map(str, chosen))
    return text.capitalize() + ("s." if number % 3 else "!")


def write_sentences(file: Path, count: int = 240) -> Path:
    """A CSV of sentences, the kinds in turn."""
    lines = [f'"{sentence(number % 2, number)}",{KINDS[number % 2]}' for number in range(count)]
    file.write_text("sentence,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return file


@functools.cache
def sentence_model() -> onnx.ModelProto:
    """Tokens and mask → logits: the mean of the tokens' vectors that are no padding, and a linear layer."""
    size, width = len(VOCABULARY), 16
    vectors = np.random.default_rng(3).normal(0, 0.05, (size, width)).astype(np.float32)
    for words, sign in ((WEATHER, 1.0), (MONEY, -1.0)):
        for word in words:
            vectors[VOCABULARY.index(word), 0] = sign
    weight = np.zeros((width, 2), np.float32)
    weight[0] = 4.0, -4.0
    weight += np.random.default_rng(4).normal(0, 0.01, weight.shape).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["embedded", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "second"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "second"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"]),
    ]
    constants: dict[str, Any] = {
        "vectors": vectors,
        "last": np.array([2]),
        "second": np.array([1]),
        "weight": weight,
        "bias": np.zeros(2, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "sentences",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "L"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_processing(folder: Path) -> tuple[Path, Path]:
    """The processing files of both, with the vocabulary beside them."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    image, text = folder / "image.toml", folder / "text.toml"
    image.write_text(IMAGE_TOML)
    text.write_text(TEXT_TOML)
    return image, text


def build_pictures(folder: Path, **options: Any) -> Path:
    """The digits' package that takes pictures; ``folder`` must not exist."""
    from model_export import build

    folder.mkdir()
    image, _ = write_processing(folder)
    data = write_pictures(folder / "data")
    package = folder / "package"
    build(digits.classifier(), package, data, processing=image, name="digits", reproducible=True, **options)
    return package


def build_sentences(folder: Path, **options: Any) -> Path:
    """The package that takes sentences; ``folder`` must not exist."""
    from model_export import build

    folder.mkdir()
    _, text = write_processing(folder)
    data = write_sentences(folder / "data.csv")
    package = folder / "package"
    labels = None if "like" in options else KINDS
    named = {} if "like" in options else {"name": "sentences", "labels": labels, "reproducible": True}
    build(sentence_model(), package, data, processing=text, **(named | options))
    return package
