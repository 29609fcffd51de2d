"""Programs on a real local Ray cluster: its limits, its log and its end are those of a child of the hub."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cloud_hub.training.bounded import Call, Limits, run
from cloud_hub.training.program_lines import Line
from cloud_hub.training.ray_runner import RayRunner
from cloud_hub.training.trainer import Cancelled, TrainingError
from tests.integration.brokers import free_port

ROOT = Path(__file__).parents[2]
PATIENCE_S = 180.0


@pytest.fixture(scope="module", name="address")
def cluster() -> Iterator[str]:
    """A cluster of this machine alone, with one processor and a folder of its own."""
    ray = Path(sysconfig.get_path("scripts"), "ray")
    if not ray.is_file():
        pytest.skip("Ray is not installed: pip install 'edgeloop[training]'; it has no wheel for every Python")
    # Its sockets' paths may have 107 characters, so pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    port = free_port()
    command = [str(ray), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=1", "--port=0"]
    command += [f"--ray-client-server-port={free_port()}", "--object-store-memory=80000000", f"--temp-dir={folder}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    with (folder / "start.txt").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + PATIENCE_S
        while not answers(address):
            told = (folder / "start.txt").read_text()
            assert process.poll() is None and time.monotonic() < until, f"Ray does not start: {told[-2000:]}"
            time.sleep(0.2)
        yield address
    finally:
        end_all(process)
        shutil.rmtree(folder, ignore_errors=True)


def answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{address}/api/jobs/", timeout=5.0, trust_env=False).status_code == 200
    return False


def end_all(starter: subprocess.Popen[bytes]) -> None:
    """The processes of this cluster; `ray stop` would end every cluster of this machine."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(starter.pid)
        processes = [root, *root.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes[1:], timeout=30.0)
    starter.wait()


def call(folder: Path, code: str, **limits: Any) -> Call:
    bounds = Limits(**{"seconds": PATIENCE_S, "spare_bytes": 0, "grace_s": 0.5, **limits})
    return Call("the program", ["python", "-c", code], folder, folder / "job.json", bounds)


def test_a_program_runs_there_as_it_does_beside_the_hub(address: str, tmp_path: Path) -> None:
    heard: list[Line] = []
    code = "import os; print('progress 0.5 half'); print('result 0.9'); open('../output/model', 'w').write('made')"
    asked = call(tmp_path, code)
    end = run(RayRunner(address), asked, heard.append, lambda: False)
    assert heard == [Line("half", 0.5), Line("result 0.9", None, 0.9)] and end.code == 0
    assert (asked.output / "model").read_text() == "made"
    jobs: Sequence[dict[str, Any]] = httpx.get(f"{address}/api/jobs/", trust_env=False).json()
    assert [job["status"] for job in jobs if str(tmp_path) in job["entrypoint"]] == ["SUCCEEDED"]


def test_a_run_that_is_stopped_ends_its_job_and_that_of_a_hub_that_was_killed(address: str, tmp_path: Path) -> None:
    runner, asked = RayRunner(address), call(tmp_path, "import time; open('begun', 'w'); time.sleep(600)")
    runner._submit("edgeloop-left", asked, asked.begin(parent=None))
    (asked.folder / "ray-job").write_text("edgeloop-left")
    with pytest.raises(Cancelled, match="was stopped"):
        run(runner, asked, lambda line: None, (asked.work / "begun").exists)
    jobs: Sequence[dict[str, Any]] = httpx.get(f"{address}/api/jobs/", trust_env=False).json()
    ended = [job["status"] for job in jobs if str(tmp_path) in job["entrypoint"]]
    assert len(ended) == 2 and set(ended) <= {"STOPPED", "FAILED", "SUCCEEDED"}


def test_an_address_without_ray_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_hub.training.ray_runner.SILENT_S", 0.0)
    with pytest.raises(TrainingError, match=r"Ray at http://127\.0\.0\.1:1 does not answer"):
        run(RayRunner("http://127.0.0.1:1"), call(tmp_path, ""), lambda line: None, lambda: False)
