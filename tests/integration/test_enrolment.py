"""A device becomes part of a fleet: real hub, real agent, real Mosquitto, mutual TLS between them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.hub_process import wait_for
from tests.integration.secure_fleet import SecureAgent, SecureHub, needs_mosquitto

pytestmark = needs_mosquitto


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureHub]:
    hub = SecureHub(tmp_path_factory.mktemp("hub"))
    try:
        yield hub.start()
    finally:
        hub.close()


def test_an_enrolled_agent_reports_over_mutual_tls(hub: SecureHub, tmp_path: Path) -> None:
    made = hub.command("enrolment", "create", "--device", "cam-*", "--channel", "night")
    assert made.returncode == 0, made.stderr
    agent = SecureAgent(tmp_path, device="cam-1")
    done = agent.enrol(hub.url, made.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert "cam-1 is enrolled in the fleet test" in done.stdout
    folder = agent.data / "identity"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    try:
        agent.start()
        report = wait_for(
            lambda: next((one for one in hub.get("devices") if one["device"] == "cam-1" and one["channel"]), None),
            what=f"the agent's report\n{agent.log}\n{hub.log}",
        )
        assert report["online"]
        assert report["channel"] == "night"
        assert agent.status()["messaging"]["connected"]
        hub.api.post("/api/v1/devices/cam-1/revoke", json={"reason": "test"}).raise_for_status()
        wait_for(lambda: not agent.status()["messaging"]["connected"], what="a revoked agent to be cut off")
        wait_for(lambda: agent.status()["messaging"]["last_error"], what="its reason")
        assert agent.http.get("/v2/health/live").status_code == 200, "and it serves on"
    finally:
        agent.close()
