"""``model-export keys`` in the process of a test, and what it answers."""

from __future__ import annotations

import json
from typing import Any

import typer
from click.testing import CliRunner, Result

from edgeloop.trust.state import TrustState
from model_export.cli import app
from model_export.exit_codes import ExitCode
from tests.doubles.secure_fleet import SecureFleet

_COMMAND = typer.main.get_command(app)
"""Made once: that takes longer than most of the commands."""


def keys_command(*arguments: object) -> Result:
    """``model-export keys …``, in this process."""
    return CliRunner().invoke(_COMMAND, ["keys", *map(str, arguments)])


def run(*arguments: object, code: int = 0) -> dict[str, Any]:
    """One that has to end with this exit code; its JSON."""
    done = keys_command(*arguments, "--json")
    assert done.exit_code == code, done.output
    return dict(json.loads(done.stdout))


def refused(code: ExitCode, *arguments: object) -> str:
    answer = run(*arguments, code=code)
    assert answer["kind"] == code.name.lower()
    return f"{answer['error']} ({answer['hint']})"


def roles(answer: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Role → version and missing signatures."""
    return {role["role"]: (role["version"], role["missing"]) for role in answer["roles"]}


def answer_of(fleet: SecureFleet) -> dict[str, Any]:
    return TrustState("f", {role: key.public_key for role, key in fleet.online.items()}, {}, ()).to_document()


def names(keys: list[str]) -> list[str]:
    """Keys without the begin of their ids."""
    return [key.partition(" ")[0] for key in keys]
