"""Text with labels that every Python carries: paragraphs of the standard library's own documentation.

A row is up to `WORDS` words of a docstring; its class is the package that the docstring is of. Docstrings, not rows,
are dealt out to train, build and test, so that no sentence is in two of them.
"""

from __future__ import annotations

import ast
import collections
import hashlib
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

#: Packages and modules that every build of Python has, with some hundred paragraphs each.
CLASSES = (
    "asyncio",
    "email",
    "http",
    "importlib",
    "ipaddress",
    "logging",
    "multiprocessing",
    "typing",
    "unittest",
    "xml",
)
WORDS, LENGTH, VOCABULARY = 24, 26, 6000
PAD, UNKNOWN, START = 0, 1, 2
#: Of ten docstrings: how many train, and how many build the package; the others test it.
TRAIN, BUILD = 6, 2

Tokens = npt.NDArray[np.int64]
_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")


def rows() -> dict[str, list[tuple[list[str], int]]]:
    """Words and class of every row, by what it is for: ``train``, ``build`` and ``test``."""
    dealt: dict[str, list[tuple[list[str], int]]] = {"train": [], "build": [], "test": []}
    for label, name in enumerate(CLASSES):
        for text in sorted(set(_docstrings(name))):
            turn = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 10
            part = "train" if turn < TRAIN else "build" if turn < TRAIN + BUILD else "test"
            # The module's own name would give its class away.
            words = [word for word in _WORD.findall(text.lower()) if word != name]
            dealt[part] += [(words[i : i + WORDS], label) for i in range(0, max(len(words) - 7, 0), WORDS)]
    return dealt


def encoded(dealt: dict[str, list[tuple[list[str], int]]]) -> dict[str, dict[str, Tokens]]:
    """``input_ids`` and ``attention_mask`` int64 [N, `LENGTH`] and ``label`` int64 [N] of each part."""
    counts = collections.Counter(word for words, _ in dealt["train"] for word in words)
    known = {word: i for i, (word, _) in enumerate(counts.most_common(VOCABULARY - 3), start=3)}
    result = {}
    for part, found in dealt.items():
        ids = np.full((len(found), LENGTH), PAD, np.int64)
        for row, (words, _) in enumerate(found):
            numbers = [START, *(known.get(word, UNKNOWN) for word in words)][:LENGTH]
            ids[row, : len(numbers)] = numbers
        labels = np.array([label for _, label in found], np.int64)
        result[part] = {"input_ids": ids, "attention_mask": (ids != PAD).astype(np.int64), "label": labels}
    return result


def _docstrings(name: str) -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    files = [root / f"{name}.py", *(root / name).rglob("*.py")]
    for file in sorted(file for file in files if file.is_file() and "test" not in file.relative_to(root).parts):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from [ast.get_docstring(node) or ""]
