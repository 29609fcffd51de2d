"""What a processing file and a Hugging Face folder say, and what they may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_export.data import Table, read_table
from model_export.errors import DataError, RequestError
from model_export.processing import declared
from model_export.processing.files import from_file
from model_export.processing.guess import MAX_LENGTH, from_folder
from model_export.processing.steps import ImageSteps, Processing, read_processing
from tests.doubles.processed import IMAGE_TOML, TEXT_TOML, VOCABULARY, write_processing


def test_files_say_what_is_declared_and_recipes_say_it_again(tmp_path: Path) -> None:
    image, text = map(from_file, write_processing(tmp_path))
    assert image.image == ImageSteps(8, 8, colours="grey", layout="flat")
    assert text.text is not None
    assert (text.text.vocabulary, text.text.max_length, text.output.softmax) == (VOCABULARY, 16, True)
    assert read_processing(image.to_json(), origin="image.toml") == image
    assert "vocabulary" not in text.to_json()["text"]
    assert read_processing(text.to_json(), VOCABULARY, origin="text.toml") == text
    assert Processing().to_json() == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[image", "cannot be read"),
        ("[picture]\nsize = 3", "there is no table [picture]"),
        ("[image]\nsize = [8, 8, 8]", "size is one number"),
        ("[image]\nsize = 8\nheight = 8", "size is one number"),
        ("[image]\nwidth = 8", "height"),
        ('[image]\nsize = "8"', "height cannot be '8'"),
        ("[image]\nsize = true", "height cannot be True"),
        ("[image]\nsize = 0", "whole number from 1"),
        ("[image]\nsize = 100000", "whole number from 1"),
        ("[image]\nsize = 8\nmean = [1, 2]", "mean takes one number, or 3"),
        ("[image]\nsize = 8\nstd = [0]", "std is never 0"),
        ('[image]\nsize = 8\nfit = "squeeze"', "fit is one of crop, stretch"),
        ("[image]\nsize = 8\nshorter = 4", "shorter goes with"),
        ('[image]\nsize = 8\nlayout = "NHW"', "no place for colours"),
        ("[image]\nsize = 8\nzoom = 3", "has no 'zoom'"),
        ("[text]\nmax_length = 8", "vocabulary has to name a file"),
        ('[text]\nvocabulary = "other.txt"', "cannot be read"),
        ('[text]\nvocabulary = "vocab.txt"\nmax_length = 2', "whole number from 3"),
        ('[text]\nvocabulary = "vocab.txt"\nstart = "<s>"', "lacks the special token <s>"),
        ('[text]\nvocabulary = "vocab.txt"\nmask = "input_ids"', "three inputs"),
        ('[[column]]\nname = "a"\n[[column]]\nname = "a"', "the same name"),
        ('[[column]]\nname = "a"\nstd = 0', "not 0"),
        ('[[column]]\nname = "a"\nmean = 3\ncategories = ["x"]', "no mean and std"),
        ('[column]\nname = "a"', "[[column]]"),
        ("[output]\ntemperature = 0", "above 0"),
        (IMAGE_TOML + '[[column]]\nname = "a"', "one of them"),
    ],
)
def test_a_file_that_cannot_be_followed(tmp_path: Path, content: str, said: str) -> None:
    write_processing(tmp_path)
    (tmp_path / "p.toml").write_text(content)
    with pytest.raises(RequestError) as error:
        from_file(tmp_path / "p.toml")
    assert said in str(error.value)
    assert error.value.hint


def folder(tmp_path: Path, **files: Any) -> Path:
    for name, content in files.items():
        path = tmp_path / {"pictures": "preprocessor_config.json", "vocab": "vocab.txt"}.get(name, f"{name}.json")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


NORMAL = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"size": {"height": 224, "width": 200}, "resample": 2, **NORMAL}, {"fit": "stretch"}),
        (
            {"size": 224, "crop_size": None, "resample": 3, **NORMAL},
            {"fit": "stretch", "resample": "cubic", "width": 224},
        ),
        (
            {
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
                **NORMAL,
            },
            {"fit": "crop", "shorter": 256, "width": 224},
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, **NORMAL}, {"fit": "crop", "shorter": 256, "width": 224}),
    ],
)
def test_a_hugging_face_folder_of_pictures(tmp_path: Path, said: Any, expected: dict[str, Any]) -> None:
    found = from_folder(folder(tmp_path, pictures=said)).image
    assert found is not None
    values = {"height": 224, "width": 200, "mean": (0.5,) * 3, "std": (0.5,) * 3, **expected}
    assert {name: getattr(found, name) for name in values} == values


@pytest.mark.parametrize(
    "said",
    [
        {"size": {"shortest_edge": 224}},
        {"do_resize": False, "do_center_crop": False},
        {"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 224},
        {"size": 224, "resample": 1},
        {"size": "large"},
        [],
    ],
)
def test_a_folder_of_pictures_that_cannot_be_guessed(tmp_path: Path, said: Any) -> None:
    with pytest.raises(RequestError) as error:
        from_folder(folder(tmp_path, pictures=said))
    assert "processing.toml" in error.value.hint


BERT: dict[str, Any] = {
    "model": {"type": "WordPiece", "vocab": {token: number for number, token in enumerate(VOCABULARY)}},
    "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "TemplateProcessing"},
    "added_tokens": [{"content": "[CLS]"}],
}


def test_a_hugging_face_folder_of_texts(tmp_path: Path) -> None:
    lines = "\n".join(VOCABULARY) + "\n"
    slow = folder(tmp_path, vocab=lines, tokenizer_config={"do_lower_case": False, "model_max_length": 64})
    found = from_folder(slow).text
    assert found is not None
    assert (found.vocabulary, found.lowercase, found.strip_accents, found.max_length) == (VOCABULARY, False, False, 64)
    fast = folder(
        tmp_path,
        tokenizer=BERT,
        tokenizer_config={"cls_token": {"content": "[CLS]"}, "model_max_length": 10**30},
    )
    found = from_folder(fast).text
    assert found is not None
    assert (found.vocabulary, found.lowercase, found.strip_accents, found.max_length) == (
        VOCABULARY,
        True,
        True,
        MAX_LENGTH,
    )


@pytest.mark.parametrize("model", [{"type": "BPE", "vocab": {}}, {"type": "Unigram", "vocab": []}, {}])
def test_a_tokenizer_of_another_kind(tmp_path: Path, model: Any) -> None:
    with pytest.raises(RequestError, match="cannot be guessed"):
        from_folder(folder(tmp_path, tokenizer={"model": model}))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"normalizer": None}, "normalizer is none"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer is Lowercase"),
        ({"normalizer": {"type": "BertNormalizer", "handle_chinese_chars": False}}, "Chinese"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer is Whitespace"),
        ({"post_processor": None}, "post_processor is none"),
        ({"added_tokens": [{"content": "<new>"}]}, "'<new>' was added"),
        ({"model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 2}}}, "gaps"),
    ],
)
def test_a_tokenizer_that_is_not_quite_berts_is_not_guessed(tmp_path: Path, other: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        from_folder(folder(tmp_path, tokenizer=BERT | other))


def test_a_folder_is_asked_only_where_the_data_need_it(tmp_path: Path) -> None:
    said = folder(tmp_path, pictures={"size": "large"})
    prepared = Table({"pixel_values": np.zeros((3, 3, 8, 8), np.float32)}, np.zeros(3), "x.npz", "")
    assert declared(said, None, prepared) == Processing()
    raw = Table({"image": np.array([b"a", b"b"], object)}, np.zeros(2), "x", "")
    with pytest.raises(RequestError):
        declared(said, None, raw)
    (said / "processing.toml").write_text(IMAGE_TOML)
    assert declared(said, None, raw).image is not None


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a", "x": [1, 2], "label": "yes"}\n\n{"text": "bb", "x": [3, 4], "label": "no"}\n')
    table = read_table(path)
    assert table.labels.tolist() == ["yes", "no"]
    assert table.columns["text"].tolist() == ["a", "bb"]
    assert table.columns["x"].tolist() == [[1, 2], [3, 4]]
    for content in (
        "{",
        "[1]",
        '{"a": 1, "label": 1}\n{"label": 1}',
        '{"x": [1], "label": 1}\n{"x": [1, 2], "label": 1}',
    ):
        path.write_text(content)
        with pytest.raises(DataError):
            read_table(path)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("cat/b.PNG", "cat/a.jpg", "dog/c.jpeg", "dog/notes.txt", ".hidden/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    table = read_table(tmp_path)
    assert table.labels.tolist() == ["cat", "cat", "dog"]
    assert table.columns["image"].tolist() == [b"cat/a.jpg", b"cat/b.PNG", b"dog/c.jpeg"]
    before = table.sha256
    (tmp_path / "cat" / "a.jpg").write_bytes(b"other")
    assert read_table(tmp_path).sha256 != before


def test_the_words_of_the_reference_are_the_fields() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "model-export.md").read_text(encoding="utf-8")
    section = page[page.index("### Processing") : page.index("### What is written")]
    from dataclasses import fields

    from model_export.processing.steps import ColumnSteps, OutputSteps, TextSteps

    for kind in (ImageSteps, TextSteps, ColumnSteps, OutputSteps):
        for field in fields(kind):
            assert f"`{field.name}`" in section, field.name
    assert TEXT_TOML.startswith("[text]")
