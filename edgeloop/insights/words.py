"""Texts and tokens as two numbers: how long they are, and how much of them is known from the validation data.

What is known is a set of bits, one for each of 65,536 remainders of a hash, so its size does not depend on the texts.
It holds no word that could be read from it: who wants to know whether it holds a certain word can ask, and is wrong as
often as the set is full.
"""

from __future__ import annotations

import re
import zlib

import numpy as np

from edgeloop.insights.sizes import Array, Floats
from edgeloop.insights.summaries import flatten

#: Bits of the set, and bytes that they take in a profile. The words of some thousand sentences fill a tenth of it.
BITS = 1 << 16
BYTES = BITS // 8
#: Of a longer text only the beginning is looked at for words; that is about a thousand of them, and 0.2 ms.
MOST_BYTES = 4096
#: 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4): numbers that follow one another get bits far apart, and up
#: to 65,536 of them hardly ever the same.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
#: Letters and digits. Bytes outside ASCII are parts of letters in UTF-8; so no table of Unicode, which changes from one
#: version of Python to the next, decides what a word is.
_WORD = re.compile(rb"[0-9a-z\x80-\xff]+")


def token_measures(tokens: Array, pad: int, vocabulary: Array) -> Floats:
    """Number of tokens but for the padding, and the share of them that is known.

    Args:
        tokens: integers [n, L].
        pad: the token that fills up short rows; negative when there is none.
        vocabulary: uint8 [BYTES], of :func:`token_vocabulary`.

    Returns:
        float64 [2, n]; of an empty row everything is known.
    """
    real = tokens != pad if pad >= 0 else np.ones(tokens.shape, bool)
    bits = _token_bits(tokens)
    known = (vocabulary[bits >> 3] >> (bits & 7)) & real
    lengths = real.sum(axis=1)
    return np.stack([lengths, np.where(lengths, known.sum(axis=1) / np.maximum(lengths, 1), 1.0)])


def token_vocabulary(tokens: Array, pad: int) -> Array:
    """The set of the tokens: uint8 [BYTES]."""
    return _packed(_token_bits(tokens[tokens != pad] if pad >= 0 else tokens.reshape(-1)))


def padding_of(tokens: Array) -> int:
    """The token that fills up short rows [n, L], or -1.

    That is the one in which most rows end, or begin, if it comes twice in a row there in at least one row in ten.
    """
    if not len(tokens) or tokens.shape[1] < 2:
        return -1
    for last, before in ((-1, -2), (0, 1)):
        twice = tokens[tokens[:, last] == tokens[:, before], last]
        if len(twice) * 10 >= len(tokens):
            found, counts = np.unique(twice, return_counts=True)
            return int(found[counts.argmax()])
    return -1


def text_measures(texts: Array, vocabulary: Array) -> Floats:
    """Number of characters, and the share of the words that is known.

    Args:
        texts: strings, bytes or objects [n, …]; the parts of a row are joined by spaces.
        vocabulary: uint8 [BYTES], of :func:`text_vocabulary`.

    Returns:
        float64 [2, n]; of a text without words everything is known.
    """
    known = np.unpackbits(vocabulary, bitorder="little").tobytes()
    out = np.ones((2, len(texts)))
    for row, text in enumerate(_rows(texts)):
        out[0, row] = len(text.decode("utf-8", "replace"))
        if bits := _word_bits(text):
            out[1, row] = sum(map(known.__getitem__, bits)) / len(bits)
    return out


def text_vocabulary(texts: Array) -> Array:
    """The set of the words: uint8 [BYTES]."""
    return _packed(np.array([bit for text in _rows(texts) for bit in _word_bits(text)], np.int64))


def _rows(texts: Array) -> list[bytes]:
    return [b" ".join(map(_utf8, row)) for row in flatten(texts).tolist()]


def _utf8(part: object) -> bytes:
    return part if type(part) is bytes else str(part).encode("utf-8", "replace")


def _word_bits(text: bytes) -> list[int]:
    # CRC-32 is the same everywhere and costs a tenth of a microsecond; Python's own hash is salted.
    words = _WORD.findall(text[:MOST_BYTES].lower())
    whole = words[:-1] if len(text) > MOST_BYTES else words  # the last one may have been cut in two
    return [zlib.crc32(word) % BITS for word in whole]


def _token_bits(tokens: Array) -> Array:
    with np.errstate(over="ignore"):
        spread = tokens.astype(np.int64).view(np.uint64) * _GOLDEN
    return (spread >> np.uint64(48)).astype(np.int64)


def _packed(bits: Array) -> Array:
    known = np.zeros(BITS, np.uint8)
    known[bits] = 1
    return np.packbits(known, bitorder="little")
