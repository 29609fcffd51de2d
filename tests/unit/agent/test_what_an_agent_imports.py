"""An agent that serves carries no library that it does not need to serve: each costs every device memory and time.

The figures are of docs/decisions/agent-footprint.md. A feature that needs one of these imports it when it is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.installed import install
from tests.doubles.packages import make_package
from tests.integration.brokers import free_port

#: Module → why an agent that serves over HTTP does without it.
UNWANTED = {
    "onnx": "reads graphs for the audit, which is a child process (30 MB with what it brings)",
    "google.protobuf": "comes with onnx and with gRPC",
    "ml_dtypes": "comes with onnx",
    "pydantic": "settings are a dataclass (edge_agent.fields); with pydantic-settings 15 MB and a quarter of a second",
    "pydantic_settings": "as pydantic",
    "typer": "the command line is argparse",
    "click": "as typer",
    "rich": "tables are for status and doctor, which are other processes",
    "pygments": "comes with rich",
    "httpx": "comes with the first update: it takes as long to import as a third of what serves",
    "structlog": "the log is the standard library's (edge_agent.logs); it brings rich",
    "prometheus_client": "the metrics' text is a page (edge_agent.metrics)",
    "grpc": "only an agent whose gRPC door is switched on pays for it",
    "edge_agent.flows": "an agent that is called does not listen",
    "edge_agent.flow_settings": "as edge_agent.flows",
    "PIL": "only a source of pictures needs it",
    "cv2": "only a camera source needs it",
    "pyarrow": "only a replay of Parquet needs it",
    "fastapi": "the cloud's",
    "sqlalchemy": "the cloud's",
    "sklearn": "the exporter's",
    "scipy": "the exporter's",
    "torch": "the exporter's",
    "edgeloop.package.author": "writes packages, which a device never does",
    "edgeloop.package.draft": "as edgeloop.package.author",
    "edgeloop.insights.drift": "the hub's question",
    "unittest": "numpy.testing and others bring it",
    "multiprocessing": "an agent is one process; a child is a command of its own",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Modules of a real agent that has answered, without a hub and a broker."""
    folder = tmp_path_factory.mktemp("imports")
    install(make_package(folder / "package"), folder / "data")
    port = free_port()
    config = folder / "agent.toml"
    config.write_text(
        f'device = "a"\ndata = "{folder / "data"}"\nlisten_port = {port}\nbroker_port = {free_port()}\n'
        "checkpoint_s = 0.1\nreport_s = 0.1\n"
    )
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}]}).encode()
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.agent.serving_child", str(config), str(port)],
        input=head + body,
        capture_output=True,
        check=False,
        timeout=120,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "EDGE_AGENT_LOG_LEVEL": "warning"},
    )
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0 and len(lines) == 2, done.stderr.decode()
    return dict(json.loads(lines[1]))


@pytest.fixture(scope="module")
def carried(found: dict[str, list[str]]) -> set[str]:
    return set(found["all"])


def test_the_first_request_imports_nothing(found: dict[str, list[str]]) -> None:
    assert found["brought"] == []


def test_the_agent_has_what_it_serves_with(carried: set[str]) -> None:
    assert {"numpy", "onnxruntime", "httptools", "edge_agent.serving.http", "edge_agent.updates.machine"} <= carried


@pytest.mark.parametrize("module", UNWANTED)
def test_an_agent_that_serves_does_not_carry(module: str, carried: set[str]) -> None:
    assert module not in carried, UNWANTED[module]
