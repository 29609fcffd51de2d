"""What a Hugging Face folder says of its model's pictures or texts; it is read without Hugging Face's libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_export.errors import RequestError
from model_export.processing.files import read_vocabulary
from model_export.processing.steps import ImageSteps, OutputSteps, Processing, TextSteps

PICTURES, TEXTS, TOKENIZER = "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json"
#: Tokens of a text where nothing says how long they are: a longer one costs time, and is said in a processing.toml.
MAX_LENGTH = 128
#: Part of a ``tokenizer.json`` → what it is where a tokenizer is BERT's.
_BERT: Mapping[str, tuple[str, ...]] = {
    "normalizer": ("BertNormalizer",),
    "pre_tokenizer": ("BertPreTokenizer",),
    "post_processor": ("TemplateProcessing", "BertProcessing"),
}
#: PIL's numbers.
_RESAMPLE = {0: "nearest", 2: "linear", 3: "cubic"}
_HINT = "say it in a processing.toml in that folder; docs/reference/model-export.md lists what it may say"


def from_folder(folder: Path) -> Processing:
    """What is said there; nothing, where it is no Hugging Face folder.

    Raises:
        RequestError: it says what cannot be done in a graph.
    """
    try:
        if (folder / PICTURES).is_file():
            return _of_pictures(_json(folder / PICTURES))
        if (folder / TEXTS).is_file() or (folder / TOKENIZER).is_file():
            return _of_texts(folder)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RequestError(f"{folder.name}: what comes before the model cannot be guessed: {error}", _HINT) from error
    return Processing()


def _of_pictures(told: Mapping[str, Any]) -> Processing:
    size, crop = told.get("size", 224), told.get("crop_size")
    resize, cut = told.get("do_resize", True), told.get("do_center_crop", False)
    if not resize and not cut:
        raise ValueError(f"{PICTURES} resizes nothing, and so names no size")
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    if shortest is not None and "crop_pct" in told and not cut:
        # ConvNeXT's: the crop is `size`, of a picture that is larger by this share.
        height = width = int(shortest)
        shorter, fit = int(shortest / (told["crop_pct"] or 1)), "crop"
    elif cut:
        height, width = _sides(crop if crop is not None else size)
        # What is resized to both sides first is stretched; only its middle would be another picture.
        if resize and shortest is None and _sides(size) != (height, width):
            raise ValueError(f"{PICTURES} stretches to {_sides(size)} and then cuts {height, width}")
        shorter, fit = int(shortest or 0) if resize else 0, "stretch" if resize and shortest is None else "crop"
    elif shortest is None:
        (height, width), shorter, fit = _sides(size), 0, "stretch"
    else:
        raise ValueError(f"{PICTURES} keeps the aspect ratio, so its pictures differ in size")
    resample = _RESAMPLE.get(told.get("resample", 2))
    if resample is None:
        raise ValueError(f"{PICTURES}: resample {told['resample']!r} is not known")
    normal = told.get("do_normalize", True)
    steps = ImageSteps(
        height,
        width,
        fit=fit,  # type: ignore[arg-type]  # one of the two, above
        shorter=shorter if shorter > max(height, width) else 0,
        resample=resample,  # type: ignore[arg-type]  # from the table
        scale=float(told.get("rescale_factor", 1 / 255)) if told.get("do_rescale", True) else 1.0,
        mean=_numbers(told.get("image_mean")) if normal else (),
        std=_numbers(told.get("image_std")) if normal else (),
    )
    return Processing(image=steps, output=OutputSteps(softmax=True), origin=PICTURES)


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        size = size if "height" in size else {"height": size["shortest_edge"], "width": size["shortest_edge"]}
        return int(size["height"]), int(size["width"])
    return (int(size[0]), int(size[1])) if isinstance(size, list) else (int(size), int(size))


def _numbers(told: Any) -> tuple[float, ...]:
    return tuple(map(float, told or ()))


def _of_texts(folder: Path) -> Processing:
    told = _json(folder / TEXTS) if (folder / TEXTS).is_file() else {}
    fast = _json(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else {}
    normal = fast.get("normalizer") or {}
    if fast:
        vocabulary = _of_bert(fast)
    elif (folder / "vocab.txt").is_file():
        vocabulary = read_vocabulary(folder / "vocab.txt")
    else:
        raise ValueError(
            "it has neither tokenizer.json nor vocab.txt; WordPiece (BERT and its relatives) alone is known"
        )
    lowercase = bool(told.get("do_lower_case", normal.get("lowercase", True)))
    accents = told.get("strip_accents", normal.get("strip_accents"))
    special = {"unknown": "unk_token", "start": "cls_token", "end": "sep_token", "pad": "pad_token"}
    names = {field: _token(told[key]) for field, key in {**special, "masked": "mask_token"}.items() if told.get(key)}
    config = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    longest = min(int(told.get("model_max_length", MAX_LENGTH)), int(config.get("max_position_embeddings", MAX_LENGTH)))
    steps = TextSteps(
        vocabulary,
        lowercase=lowercase,
        strip_accents=lowercase if accents is None else bool(accents),
        max_length=min(longest, MAX_LENGTH),
        **names,
    )
    return Processing(text=steps, output=OutputSteps(softmax=True), origin=TOKENIZER if fast else TEXTS)


def _of_bert(fast: Mapping[str, Any]) -> tuple[str, ...]:
    """The vocabulary of a ``tokenizer.json`` that does what BERT's does: the graph's tokenizer does nothing else."""
    if fast["model"].get("type", "WordPiece") != "WordPiece":
        raise ValueError(f"its tokenizer is {fast['model']['type']}; WordPiece (BERT and its relatives) alone is known")
    for part, wanted in _BERT.items():
        kind = (fast.get(part) or {}).get("type", "none")
        if kind not in wanted:
            raise ValueError(f"its {part} is {kind}; {' or '.join(wanted)} alone is known")
    if not fast["normalizer"].get("handle_chinese_chars", True):
        raise ValueError("its normalizer leaves Chinese characters together")
    numbers = dict(fast["model"]["vocab"])
    vocabulary = tuple(sorted(numbers, key=numbers.__getitem__))
    if [numbers[token] for token in vocabulary] != list(range(len(vocabulary))):
        raise ValueError("the numbers of its tokens have gaps")
    added = [told["content"] for told in fast.get("added_tokens") or () if told["content"] not in numbers]
    if added:
        raise ValueError(f"the token {added[0]!r} was added to its vocabulary, and is no WordPiece")
    return vocabulary


def _token(told: Any) -> str:
    return str(told["content"] if isinstance(told, dict) else told)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return found
