"""Texts and tokens as two numbers, and a vocabulary of fixed size: the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edgeloop.insights.words import BYTES, padding_of, text_measures, text_vocabulary, token_measures, token_vocabulary


def texts(*rows: object) -> np.ndarray:
    made = np.empty(len(rows), dtype=object)
    made[:] = rows
    return made


def test_length_and_share_of_known_words() -> None:
    known = text_vocabulary(texts("The cat sat on the mat.", "a dog"))
    found = text_measures(texts("the DOG barked", "", "mat, cat; dog!", "…"), known)
    assert found.tolist() == [[14, 0, 14, 1], [2 / 3, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("form", [str, lambda text: text.encode(), np.str_])
def test_strings_and_their_bytes_are_the_same(form: type) -> None:
    rows = ["Grüße aus Köln", "日本語 text", "plain"]
    known = text_vocabulary(np.array(rows[:2]))
    expected = text_measures(np.array(rows), known)
    assert np.array_equal(text_measures(texts(*map(form, rows)), known), expected)
    assert expected[0].tolist() == [14, 8, 5] and expected[1].tolist() == [1, 1, 0]


def test_any_object_is_a_text() -> None:
    found = text_measures(texts(None, 5, "\ud800", b"\xff\xfe", np.nan), np.zeros(BYTES, np.uint8))
    assert found[0].tolist() == [4, 1, 1, 2, 3]


def test_a_row_of_parts_is_one_text() -> None:
    parts = np.array([["one", "two"], ["three", "four"]])
    assert text_measures(parts, text_vocabulary(np.array(["one two three"])))[:, 1].tolist() == [10, 0.5]


def test_a_long_text_is_looked_at_in_part_and_measured_whole() -> None:
    text = "known " * 800 + "strange " * 50_000
    found = text_measures(texts(text), text_vocabulary(texts("known")))
    assert found[:, 0].tolist() == [len(text), 1.0]


def test_tokens_are_counted_without_the_padding() -> None:
    seen = np.array([[5, 6, 7, 0], [5, 8, 0, 0]])
    known = token_vocabulary(seen, 0)
    found = token_measures(np.array([[5, 6, 999, 0], [0, 0, 0, 0], [8, 7, 6, 5]]), 0, known)
    assert found.tolist() == [[3, 0, 4], [2 / 3, 1.0, 1.0]]
    assert token_measures(seen, -1, token_vocabulary(seen, -1)).tolist() == [[4, 4], [1, 1]]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_the_type_of_the_tokens_does_not_matter(dtype: type) -> None:
    tokens = np.arange(60).reshape(6, 10)
    assert np.array_equal(token_vocabulary(tokens.astype(dtype), -1), token_vocabulary(tokens, -1))


def test_a_vocabulary_of_ordinary_size_hardly_collides() -> None:
    ids = np.arange(30_000)
    bits = np.unpackbits(token_vocabulary(ids, -1)).sum()
    assert bits > 0.95 * len(ids)
    words = [f"word{number}" for number in range(5_000)]
    assert np.unpackbits(text_vocabulary(np.array(words))).sum() > 0.95 * len(words)


def test_the_bits_are_those_of_every_machine() -> None:
    # Written down once. If this fails, vocabularies of released packages no longer fit: find out what changed.
    words = text_vocabulary(np.array(["the quick brown fox", "springt über den Zaun"]))
    assert np.flatnonzero(np.unpackbits(words, bitorder="little")).tolist() == [
        1160,
        7895,
        26963,
        28134,
        37972,
        48448,
        57574,
        65311,
    ]
    tokens = token_vocabulary(np.arange(0, 200_000, 7), -1)
    assert hashlib.sha256(tokens.tobytes()).hexdigest()[:16] == "a5b8dadd98e08d2a"


@pytest.mark.parametrize(
    ("tokens", "pad"),
    [
        ([[5, 6, 0, 0], [7, 8, 9, 4]], 0),
        ([[1, 1, 5, 6], [1, 1, 1, 9], [2, 3, 4, 5]], 1),
        ([[5, 6, 7, 8], [9, 8, 7, 6]], -1),
        ([[5], [6]], -1),
        (np.zeros((0, 4), np.int64), -1),
    ],
)
def test_the_padding_is_found(tokens: list[list[int]], pad: int) -> None:
    assert padding_of(np.array(tokens)) == pad
