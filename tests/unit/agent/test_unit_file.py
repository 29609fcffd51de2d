"""The service's unit, as systemd itself judges it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.settings import load

UNIT = Path(__file__).parents[3] / "deploy" / "systemd" / "edge-agent.service"


def test_systemd_understands_the_unit_and_calls_its_sandbox_tight(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/edgeloop/bin/edge-agent", "/bin/true"))  # it has to be there
    for line in ([analyze, "verify", str(unit)], [analyze, "security", "--offline=true", "--threshold=20", str(unit)]):
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
        if "Unknown option" in done.stderr or "unrecognized option" in done.stderr:
            pytest.skip("needs a systemd that judges files: version 250 or newer")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Unknown key" not in done.stderr, done.stderr


def test_the_modest_settings_of_the_how_to_are_settings(tmp_path: Path) -> None:
    page = (UNIT.parents[2] / "docs" / "how-to" / "run-as-a-service.md").read_text()
    config = tmp_path / "agent.toml"
    config.write_text('device = "a"\n' + page.split("```toml\n")[1].split("```")[0])
    settings = load(config)
    assert (settings.disk_quota_bytes, settings.hot_celsius) == (2_000_000_000, 75)
