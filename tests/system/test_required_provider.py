"""A device whose owner requires CUDA and whose machine has none activates nothing, says why, and goes on serving."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeloop.runtime import available_providers
from tests.doubles.packages import make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import HubProcess, wait_for

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
SAID = f"{CUDA} is not in this onnxruntime"
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}]}

pytestmark = pytest.mark.skipif(CUDA in available_providers(), reason="this machine has CUDA: nothing is missing here")


def publish(hub: HubProcess, folder: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from model_export.cli import main; main()",
        "publish",
        str(folder),
        "--channel",
        "stable",
    ]
    command += ["--hub", f"http://127.0.0.1:{hub.http_port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def doctor(agent: AgentProcess) -> dict[str, Any]:
    command = [sys.executable, "-m", "edge_agent", "doctor", "--config", str(agent.config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 7, "a required provider that is missing is an error"
    return dict(json.loads(done.stdout))


def ask(agent: AgentProcess) -> None:
    answer = agent.http.post("/v2/models/digits/infer", json=ROW)
    assert answer.status_code == 200, answer.text


def test_it_refuses_says_why_everywhere_and_serves_what_it_had(tmp_path: Path) -> None:
    first, second = make_package(tmp_path / "one", version="1"), make_package(tmp_path / "two", version="2", seed=1)
    hub = HubProcess(tmp_path / "hub").start()
    own = {"hub": f"http://127.0.0.1:{hub.http_port}", "broker_port": hub.broker_port}
    agent = AgentProcess(tmp_path / "agent", **own)
    fresh = AgentProcess(tmp_path / "fresh", device="dev-2", channel="lab", required_providers=[CUDA], **own)
    agents = [agent, fresh]
    try:
        publish(hub, first.root)
        agent.start(ready=True)
        wait_for(lambda: ask(agent) or agent.status()["release"] == first.digest, 60, "the first release")
        table = agent.status()["providers"]["table"]
        assert [row["provider"] for row in table if row["chosen"]] == [CPU]
        device = wait_for(lambda: reported(hub, "dev-1", first.digest), 60, "its report")
        shown = device["health"]["providers"]["table"]
        assert [(row["variant"], row["chosen"]) for row in shown] == [(row["variant"], row["chosen"]) for row in table]
        assert agent.stop() == 0

        # A device that never had anything activates nothing.
        answer = hub.api.post("/api/v1/channels/lab/releases", json={"digest": first.digest})
        assert answer.status_code == 200, answer.text
        fresh.start()
        refused = wait_for(lambda: rolled_back(hub, "dev-2"), 60, f"a refusal\n{fresh.log}")
        assert SAID in refused["update"]["reason"] and refused["release"] is None
        assert SAID in fresh.status()["update"]["reason"]

        # One that serves already goes on, and says that this is not what its owner wants.
        required = AgentProcess(tmp_path / "agent", required_providers=[CUDA], **own)
        agents.append(required)
        required.start(ready=True)
        ask(required)
        trouble = wait_for(lambda: required.status()["providers"]["trouble"], 60, "the trouble in its status")
        assert SAID in trouble and f"goes on on {CPU}" in trouble
        device = wait_for(
            lambda: (found := hub.get("devices/dev-1")) and found["health"]["providers"]["trouble"] and found, 60, "it"
        )
        assert device["release"] == first.digest and device["health"]["providers"]["required"] == [CUDA]
        findings = doctor(required)["findings"]
        (missing,) = [finding for finding in findings if finding["check"] == "required provider"]
        assert missing["level"] == "error" and SAID in missing["found"] and "onnxruntime-gpu" in missing["found"]

        # And a new release is not activated.
        publish(hub, second.root)
        refused = wait_for(lambda: rolled_back(hub, "dev-1"), 90, f"the refusal\n{required.log}")
        assert SAID in refused["update"]["reason"] and refused["update"]["release"] == second.digest
        assert refused["release"] == first.digest
        status = required.status()
        assert status["serving"] == first.digest and SAID in status["update"]["reason"]
        ask(required)
        assert required.stop() == 0
    finally:
        for one in agents:
            one.close()
        hub.close()


def reported(hub: HubProcess, device: str, release: str) -> dict[str, Any] | None:
    found = {one["device"]: one for one in hub.get("devices")}.get(device)
    if found is None or found["release"] != release or not found["health"]["providers"]["table"]:
        return None
    return dict(found)


def rolled_back(hub: HubProcess, device: str) -> dict[str, Any] | None:
    found = {one["device"]: one for one in hub.get("devices")}.get(device)
    return found if found and (found["update"] or {}).get("state") == "rolled_back" else None
