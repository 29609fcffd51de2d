"""docs/explanations/privacy.md says of every aspect whether it could tell of one person; the code says what is done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.privacy.mechanism import TREATMENT, How

PAGE = Path(__file__).parents[3] / "docs" / "explanations" / "privacy.md"
#: What the page has to say of each treatment.
WORDS = {
    How.EXACT: "exact",
    How.HISTOGRAMS: "noise",
    How.CONFUSION: "noise",
    How.MOMENTS: "clipped, noise",
    How.HEAD: "clipped, noise",
    How.LEFT_OUT: "stays on the device",
}


def rows() -> dict[str, tuple[str, str]]:
    """Aspect → what of one row could be read, and what differential privacy does."""
    found = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: (tells, done) for name, tells, done in found}


def test_every_aspect_has_an_entry_and_nothing_else_has() -> None:
    assert set(rows()) == {aspect.name for aspect in ASPECTS}, f"say in {PAGE.name} what a new aspect could tell"


@pytest.mark.parametrize("name", [aspect.name for aspect in ASPECTS])
def test_the_page_says_what_the_code_does(name: str) -> None:
    tells, done = rows()[name]
    assert len(tells) > 10
    assert WORDS[TREATMENT[name]] in done
