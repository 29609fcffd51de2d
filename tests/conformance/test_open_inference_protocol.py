"""tritonclient, another project's client of the Open Inference Protocol, against a running agent."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.doubles.installed import install
from tests.doubles.packages import answers, make_model, make_package
from tests.integration.agent_process import AgentProcess

triton: Any = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
utils: Any = pytest.importorskip("tritonclient.utils")

X = np.random.default_rng(11).random((5, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("agent")
    agent = AgentProcess(folder)
    install(make_package(folder / "package", name="digits", version="7"), agent.data)
    yield agent.start(ready=True)
    agent.close()


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[Any]:
    client = triton.InferenceServerClient(f"127.0.0.1:{agent.port}", concurrency=4)
    yield client
    client.close()


def tensor(values: Any = X, *, binary: bool = True) -> Any:
    given = triton.InferInput("x", list(values.shape), utils.np_to_triton_dtype(values.dtype))
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def wanted(name: str, *, binary: bool = True) -> Any:
    return triton.InferRequestedOutput(name, binary_data=binary)


EXPECTED = answers(make_model(0), X)


def test_live_and_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "7")
    assert not client.is_model_ready("digits", "8")
    assert not client.is_model_ready("other")


def test_server_and_model_metadata(client: Any) -> None:
    assert client.get_server_metadata()["name"] == "edgeloop"
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    for found in (client.get_model_metadata("digits"), client.get_model_metadata("digits", "7")):
        assert (found["name"], found["versions"]) == ("digits", ["7"])
        assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
        assert [output["name"] for output in found["outputs"]] == ["label", "probabilities"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_inference_in_and_out_binary_and_json(client: Any, binary_in: bool, binary_out: bool) -> None:
    outputs = [wanted(name, binary=binary_out) for name in ("probabilities", "label")]
    found = client.infer("digits", [tensor(binary=binary_in)], outputs=outputs, request_id="mine", model_version="7")
    assert np.allclose(found.as_numpy("probabilities"), EXPECTED["probabilities"], atol=1e-5)
    assert (found.as_numpy("label") == EXPECTED["label"]).all()
    assert found.as_numpy("label").dtype == np.int64
    response = found.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("mine", "digits", "7")
    assert [output["name"] for output in response["outputs"]] == ["probabilities", "label"]


def test_without_outputs_everything_but_the_features_comes(client: Any) -> None:
    found = client.infer("digits", [tensor()])
    assert [output["name"] for output in found.get_response()["outputs"]] == ["label", "probabilities"]
    assert np.allclose(found.as_numpy("probabilities"), EXPECTED["probabilities"], atol=1e-5)


def test_the_features_come_when_they_are_named(client: Any) -> None:
    found = client.infer("digits", [tensor()], outputs=[wanted("features")])
    assert np.allclose(found.as_numpy("features"), EXPECTED["features"], atol=1e-5)
    assert found.as_numpy("label") is None


def test_asynchronous_inference(client: Any) -> None:
    waiting = [client.async_infer("digits", [tensor(X[:rows])]) for rows in (1, 2, 3, 4, 5)]
    for rows, request in enumerate(waiting, 1):
        assert (request.get_result().as_numpy("label") == EXPECTED["label"][:rows]).all()


def test_parameters_and_headers_are_taken(client: Any) -> None:
    found = client.infer(
        "digits", [tensor()], priority=1, timeout=1_000_000, headers={"X-Trace": "1"}, parameters={"note": "x"}
    )
    assert found.as_numpy("label").shape == (5,)


def test_errors_carry_the_reason(client: Any) -> None:
    with pytest.raises(utils.InferenceServerException, match="float64; it has to be FP32"):
        client.infer("digits", [tensor(X.astype(np.float64))])
    with pytest.raises(utils.InferenceServerException, match="there is no model other"):
        client.infer("other", [tensor()])
    with pytest.raises(utils.InferenceServerException, match="there is no output"):
        client.infer("digits", [tensor()], outputs=[wanted("nothing")])
    with pytest.raises(utils.InferenceServerException, match="there is no model other"):
        client.get_model_metadata("other")


def test_many_at_once(agent: AgentProcess) -> None:
    def work(seed: int) -> None:
        client = triton.InferenceServerClient(f"127.0.0.1:{agent.port}")
        x = np.random.default_rng(seed).random((seed + 1, 64), dtype=np.float32)
        expected = answers(make_model(0), x)["probabilities"]
        for _ in range(20):
            found = client.infer("digits", [tensor(x)]).as_numpy("probabilities")
            assert np.allclose(found, expected, atol=1e-5)
        client.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_the_prediction_can_be_labelled_by_its_id(client: Any, agent: AgentProcess) -> None:
    identity = client.infer("digits", [tensor()]).get_response()["id"]
    items = [{"id": identity, "label": 3, "index": 4}, {"id": identity, "label": "5", "index": 0}]
    got = agent.http.post("/edgeloop/v1/feedback", json={"items": items})
    assert got.json() == {"accepted": 2, "unknown": [], "duplicate": [], "invalid": []}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_as_the_readme_has_it(agent: AgentProcess) -> None:
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": X[0].tolist()}]}
    url = f"{agent.url}/v2/models/digits/infer"
    done = subprocess.run(["curl", "-sf", url, "-d", json.dumps(request)], capture_output=True, check=True, timeout=20)
    label, probabilities = json.loads(done.stdout)["outputs"]
    assert label["data"] == [int(EXPECTED["label"][0])]
    assert np.allclose(probabilities["data"], EXPECTED["probabilities"][0], atol=1e-5)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    "options", [["--http1.0"], ["--http2"], ["-H", "Transfer-Encoding: chunked"], ["--compressed"]]
)
def test_curl_in_its_other_ways(agent: AgentProcess, options: list[str]) -> None:
    rows = np.tile(X, (40, 1))  # large enough for curl to ask for "100 Continue"
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [200, 64], "data": rows.tolist()}]}
    command = ["curl", "-sf", *options, f"{agent.url}/v2/models/digits/infer", "-d", "@-"]
    done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=True, timeout=20)
    assert json.loads(done.stdout)["outputs"][0]["shape"] == [200]


def test_httpx_keeps_its_connection(agent: AgentProcess) -> None:
    with httpx.Client(base_url=agent.url) as client:
        for _ in range(3):
            assert client.get("/v2").json()["name"] == "edgeloop"
