"""The services' units, as systemd itself judges them, and what has to be in them whatever systemd says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.settings import load

UNITS = Path(__file__).parents[3] / "deploy" / "systemd"
USERS = {"edge-agent": "edgeloop", "cloud-hub": "edgeloop-hub"}
#: What keeps a program that was taken over where it is.
TIGHT = {
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "NoNewPrivileges": "yes",
    "RestrictSUIDSGID": "yes",
    "RestrictNamespaces": "yes",
    "SystemCallArchitectures": "native",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "PrivateUsers": "yes",
    "ProtectProc": "invisible",
    "StateDirectoryMode": "0700",
    "UMask": "0077",
}


@pytest.mark.parametrize("unit", USERS)
def test_systemd_understands_the_unit_and_calls_its_sandbox_tight(unit: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    copy = tmp_path / f"{unit}.service"
    # The program has to be there.
    copy.write_text(re.sub("/opt/edgeloop/bin/[a-z-]+", "/bin/true", (UNITS / copy.name).read_text()))
    for line in ([analyze, "verify", str(copy)], [analyze, "security", "--offline=true", "--threshold=15", str(copy)]):
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
        if "Unknown option" in done.stderr or "unrecognized option" in done.stderr:
            pytest.skip("needs a systemd that judges files: version 250 or newer")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Unknown key" not in done.stderr, done.stderr


@pytest.mark.parametrize(("unit", "user"), USERS.items())
def test_the_sandbox_is_tight_and_the_user_its_own(unit: str, user: str) -> None:
    lines = (UNITS / f"{unit}.service").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert TIGHT.items() <= found.items(), TIGHT.items() - found.items()
    assert found["User"] == found["Group"] == user == found["StateDirectory"]
    # Nothing but its state may be written: no path is opened again.
    assert not {"ReadWritePaths", "BindPaths", "LogsDirectory", "CacheDirectory"} & set(found)
    made = re.findall(r"^u (\S+) ", (UNITS / "edgeloop.sysusers.conf").read_text(), flags=re.M)
    assert user in made


def test_the_modest_settings_of_the_how_to_are_settings(tmp_path: Path) -> None:
    page = (UNITS.parents[1] / "docs" / "how-to" / "run-as-a-service.md").read_text()
    config = tmp_path / "agent.toml"
    config.write_text('device = "a"\n' + page.split("```toml\n")[1].split("```")[0])
    settings = load(config)
    assert (settings.disk_quota_bytes, settings.hot_celsius) == (2_000_000_000, 75)
