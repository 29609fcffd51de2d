"""docs/reference/teachers.md lists every field of every kind of teacher as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from cloud_hub.teachers.specs import PROMPT, TeacherSpec

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "teachers.md").read_text()
KINDS: dict[str, type[BaseModel]] = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind for kind in get_args(get_args(TeacherSpec)[0])
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_lists_every_field(kind: str) -> None:
    section = PAGE.split(f"\n## `{kind}`\n", 1)[1].split("\n## ", 1)[0]
    listed = {
        name: (default, meaning)
        for name, default, meaning in re.findall(r"^\| `(\w+)` \|(.*?)\| (.*) \|$", section, re.M)
    }
    fields = {name: field for name, field in KINDS[kind].model_fields.items() if name != "kind"}
    shown = {}
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        written = " " if field.is_required() else " below " if default == PROMPT else f" `{json.dumps(default)}` "
        shown[name] = (written, field.description)
    assert listed == shown


def test_the_page_has_the_prompt() -> None:
    assert PROMPT in PAGE
