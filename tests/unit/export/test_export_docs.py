"""The reference page says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from model_export import cli
from model_export.data import LABEL_NAMES, SUFFIXES
from model_export.exit_codes import ExitCode
from model_export.graphs.roles import ROLES
from model_export.hub import TRIES
from model_export.prepare import FEWEST_ROWS
from model_export.variants.golden import CASES

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "model-export.md").read_text(encoding="utf-8")


def test_every_exit_code_has_a_row() -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert rows == {int(code) for code in ExitCode}


def test_every_option_of_every_command_is_named_and_no_other() -> None:
    named = set(re.findall(r"(--[a-z][a-z0-9-]+)", PAGE))
    assert named == _options(typer.main.get_command(cli.app))


def _options(command: Any) -> set[str]:
    """Options of a command, or of the commands in a group, at whatever depth."""
    if hasattr(command, "commands"):
        return set().union(*(_options(inner) for inner in command.commands.values()))
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


def test_values_and_limits_in_the_text_are_the_codes() -> None:
    for word in (*SUFFIXES, *ROLES, *LABEL_NAMES):
        assert f"`{word}`" in PAGE, word
    assert f"up to {CASES} rows" in PAGE
    assert f"At least {FEWEST_ROWS} rows" in PAGE
    assert f"tried {TRIES} times" in PAGE
