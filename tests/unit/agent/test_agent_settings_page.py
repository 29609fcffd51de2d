"""The page of the agent's settings and exit codes says what the code does."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

from edge_agent import exit_codes
from edge_agent.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "edge-agent.md").read_text()


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    lines = {line.split("`")[1]: line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 4}
    for field in fields(Settings):
        assert str(field.metadata["description"]) in lines[field.name], field.name
        default = field.default
        if default not in (MISSING, None, "", ()):
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert f"| `{shown}` |" in lines[field.name], field.name


def test_every_exit_code_is_documented() -> None:
    codes = [value for name, value in vars(exit_codes).items() if name.isupper()]
    assert len(set(codes)) == len(codes), "no number has two meanings"
    assert all(f"\n| {code} | " in PAGE for code in codes)
