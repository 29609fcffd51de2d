"""Every tutorial from a model to a device that answers, done as its reader does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tutorials.pages import PAGES, follow


@pytest.mark.parametrize(
    ("page", "library"),
    [("scikit-learn.md", ""), ("onnx.md", ""), ("pytorch.md", "torch"), ("hugging-face.md", "optimum")],
)
def test_a_reader_gets_to_the_end(page: str, library: str, tmp_path: Path) -> None:
    if library:
        pytest.importorskip(library, reason=f"needs {library}: make test EXTRAS=dev,torch")
    follow(page, tmp_path)


def test_every_tutorial_from_a_model_is_followed() -> None:
    assert {path.name for path in PAGES.glob("*.md")} == {
        "first-loop.md",
        "hugging-face.md",
        "onnx.md",
        "pytorch.md",
        "scikit-learn.md",
    }
