"""The examples of the page "How to call the agent", run against an agent as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.doubles.installed import install
from tests.doubles.packages import make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.brokers import free_port

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "call-the-agent.md").read_text()
GRPC_PORT = free_port() if find_spec("grpc") else None
ZEROS = ", ".join(["0.0"] * 64)
curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("agent")
    with tempfile.TemporaryDirectory(prefix="door") as short:
        (setting,) = re.findall(r"^shared_memory = (\S+)", PAGE, re.MULTILINE)
        agent = AgentProcess(
            folder,
            shared_memory=json.loads(setting),
            listen_socket=Path(short) / "agent.sock",
            **({} if GRPC_PORT is None else {"grpc_port": GRPC_PORT}),
        )
        install(make_package(folder / "package", name="digits"), agent.data)
        digit = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}]}
        (folder / "digit.json").write_text(json.dumps(digit))
        (folder / "digit.raw").write_bytes(np.zeros(64, np.float32).tobytes())
        yield agent.start(ready=True)
        agent.close()


def here(text: str, agent: AgentProcess, folder: Path) -> str:
    """An example as it is for this agent, whose test model calls its input x."""
    socket = next(line.split('"')[1] for line in agent.config.read_text().splitlines() if "listen_socket" in line)
    text = text.replace("127.0.0.1:8001", f"127.0.0.1:{GRPC_PORT}")
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{agent.port}").replace("/run/edgeloop/agent.sock", socket)
    return text.replace('"input"', '"x"').replace("[0.0, …]", f"[{ZEROS}]").replace("@digit", f"@{folder}/digit")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0])
def test_every_python_example_runs(agent: AgentProcess, tmp_path: Path, block: str) -> None:
    if "tritonclient" in block:
        pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
        pytest.importorskip("tritonclient.grpc", reason="pip install 'tritonclient[grpc]'")
    script = here(block, agent, agent.folder)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@curl
@pytest.mark.parametrize(
    "command",
    # Those of digits; what a picture or a sentence gets is in test_processing_in_an_agent.
    [
        command
        for block in blocks("console")
        for command in re.findall(r"^\$ (.*?)(?=^\$ |^\{|\Z)", block, re.M | re.S)
        if not re.search(r"/models/(pets|reviews)/", command)
    ],
    ids=lambda command: re.sub(r"\W+", " ", command)[:60],
)
def test_every_curl_example_is_answered(agent: AgentProcess, command: str) -> None:
    command = re.sub(r"\s+# .*", "", here(command, agent, agent.folder)).strip()
    done = subprocess.run(
        ["sh", "-c", command.replace("curl -s", "curl -sf", 1)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, (command, done.stderr)
    assert done.stdout
