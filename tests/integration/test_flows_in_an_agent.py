"""A real agent that listens in every way at once, with nobody at the other ends: what it shows, and that it stops."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.flows.sources import rows
from tests.doubles.installed import install
from tests.doubles.packages import make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.brokers import free_port
from tests.integration.hub_process import wait_for

FLOWS = """
[[sources]]
name = "belt"
kind = "camera"
device = "{folder}/belt.avi"
repeat = "loop"
sinks = ["log", "alarm"]
picture = {{ width = 8, height = 8, colours = "grey", layout = "flat" }}

[[sources]]
name = "march"
kind = "replay"
path = "{folder}/march.csv"
repeat = "loop"
rate_per_s = 50
sinks = ["log"]

[[sources]]
name = "boiler"
kind = "mqtt"
topic = "boiler"
sinks = ["log"]

[[sources]]
name = "door"
kind = "folder"
path = "{folder}/door"
patterns = ["*.npy"]
settle_s = 0
sinks = ["home"]

[[sinks]]
name = "log"
kind = "jsonl"
path = "{folder}/log.jsonl"

[[sinks]]
name = "home"
kind = "mqtt"
topic = "home/{{source}}"

[[sinks]]
name = "alarm"
kind = "webhook"
url = "http://127.0.0.1:{port}/"
when_full = "drop_oldest"
spool_bytes = 65536
"""


def test_every_kind_at_once_with_nobody_there(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="cameras need OpenCV; pip install 'edgeloop[camera]'")
    writer = cv2.VideoWriter(str(tmp_path / "belt.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for number in range(10):
        writer.write(np.full((48, 64, 3), number * 20, np.uint8))
    writer.release()
    with (tmp_path / "march.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[f"c{i}" for i in range(64)], *(row.tolist() for row in rows(20))])
    (tmp_path / "door").mkdir()
    np.save(tmp_path / "door" / "a.npy", rows(1)[0])
    install(make_package(tmp_path / "package"), tmp_path / "agent" / "data")
    agent = AgentProcess(tmp_path / "agent")
    with agent.config.open("a") as config:
        config.write(FLOWS.format(folder=tmp_path, port=free_port()))
    try:
        agent.start(ready=True)

        def answered() -> dict[str, int]:
            return {source["name"]: source["counts"]["answered"] for source in agent.status()["sources"]}

        wait_for(lambda: answered()["belt"] > 5 and answered()["march"] > 25 and answered()["door"] == 1, 60, agent.log)
        status = agent.status()
        states = {source["name"]: source["state"] for source in status["sources"]}
        sinks = {sink["name"]: sink for sink in status["sinks"]}
        assert states["belt"] == states["march"] == states["door"] == "listening"
        assert "no broker at 127.0.0.1" in states["boiler"]
        assert sinks["log"]["trouble"] == "" and sinks["log"]["counts"]["delivered"] > 25
        assert "no broker" in sinks["home"]["trouble"] and sinks["home"]["counts"]["waiting"] == 1
        assert sinks["alarm"]["trouble"] and sinks["alarm"]["counts"]["waiting_bytes"] <= 65536
        text = agent.http.get("/metrics").text
        assert 'edge_agent_source_answered_total{source="door"} 1.0' in text
        assert 'edge_agent_sink_waiting{sink="home"} 1.0' in text
        shown = subprocess.run(
            [sys.executable, "-m", "edge_agent", "status", "--config", str(agent.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert all(name in shown.stdout for name in ("source belt", "source boiler", "sink alarm"))
        heard = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-2])
        feedback = {"items": [{"id": heard["id"], "label": 3}]}
        assert agent.http.post("/edgeloop/v1/feedback", json=feedback).json()["accepted"] == 1
        assert agent.stop() == 0, agent.log
        assert "did not end in time" not in agent.log
        assert (tmp_path / "log.jsonl").read_bytes().endswith(b"\n")
    finally:
        agent.close()
