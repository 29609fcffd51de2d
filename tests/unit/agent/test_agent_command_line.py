"""The command line: exit codes as documented, and messages that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import exit_codes
from edge_agent.cli import command
from edgeloop import __version__
from tests.integration.brokers import free_port


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(["--version"])
    assert caught.value.code == exit_codes.OK
    assert capsys.readouterr().out == f"edge-agent {__version__}\n"


def test_without_a_command_the_help_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([]) == exit_codes.USAGE
    told = capsys.readouterr().err
    assert all(name in told for name in ("run", "status", "doctor"))


@pytest.mark.parametrize("line", [["fly"], ["run", "--fast"], ["run", "--config"], ["run", "--json"]])
def test_a_wrong_line_is_a_usage_error(line: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(line)
    assert caught.value.code == exit_codes.USAGE


@pytest.mark.parametrize("name", ["run", "status", "doctor"])
def test_wrong_settings_are_said(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command([name, "--config", str(tmp_path / "gone.toml")]) == exit_codes.SETTINGS
    assert "gone.toml cannot be read" in capsys.readouterr().err


def test_status_without_an_agent_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'device = "a"\nlisten_port = {free_port()}\n')
    assert command(["status", "--config", str(config)]) == exit_codes.NO_AGENT
    assert "edge-agent run" in capsys.readouterr().err
