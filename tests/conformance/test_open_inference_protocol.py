"""tritonclient, another project's client of the Open Inference Protocol, against a running agent."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import pytest

from tests.doubles.echo_package import ECHOED, examples, make_echo_package
from tests.doubles.installed import install
from tests.doubles.packages import answers, make_model, make_package
from tests.integration.agent_process import AgentProcess

triton: Any = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
utils: Any = pytest.importorskip("tritonclient.utils")
shm: Any = pytest.importorskip("tritonclient.utils.shared_memory")

X = np.random.default_rng(11).random((5, 64), dtype=np.float32)
curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def listen_socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="door") as folder:  # pytest's own folders have longer names than fit
        yield Path(folder) / "agent.sock"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, listen_socket: Path) -> Iterator[AgentProcess]:
    """An agent that allows everything, with three models."""
    folder: Path = tmp_path_factory.mktemp("agent")
    models = folder / "models"
    models.mkdir()
    make_package(models / "other", name="other", version="1", seed=3)
    make_echo_package(models / "echo")
    agent = AgentProcess(
        folder,
        model_repository=models,
        repository_api=True,
        shared_memory=["/edgeloop-"],
        listen_socket=listen_socket,
    )
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


def wanted(name: str, *, binary: bool = True, classes: int = 0) -> Any:
    return triton.InferRequestedOutput(name, binary_data=binary, class_count=classes)


EXPECTED = answers(make_model(0), X)


def test_live_and_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "7")
    assert not client.is_model_ready("digits", "8")
    assert not client.is_model_ready("nothing")


def test_server_and_model_metadata(client: Any) -> None:
    assert client.get_server_metadata()["name"] == "edgeloop"
    assert set(client.get_server_metadata()["extensions"]) == {
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "parameters",
        "schedule_policy",
        "statistics",
        "system_shared_memory",
    }
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
    with pytest.raises(utils.InferenceServerException, match="there is no model nothing"):
        client.infer("nothing", [tensor()])
    with pytest.raises(utils.InferenceServerException, match="there is no output"):
        client.infer("digits", [tensor()], outputs=[wanted("nothing")])
    with pytest.raises(utils.InferenceServerException, match="there is no model nothing"):
        client.get_model_metadata("nothing")


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


@curl
def test_curl_as_the_readme_has_it(agent: AgentProcess) -> None:
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": X[0].tolist()}]}
    url = f"{agent.url}/v2/models/digits/infer"
    done = subprocess.run(["curl", "-sf", url, "-d", json.dumps(request)], capture_output=True, check=True, timeout=20)
    label, probabilities = json.loads(done.stdout)["outputs"]
    assert label["data"] == [int(EXPECTED["label"][0])]
    assert np.allclose(probabilities["data"], EXPECTED["probabilities"][0], atol=1e-5)


@curl
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


@curl
def test_curl_at_the_unix_domain_socket(agent: AgentProcess, listen_socket: Path) -> None:
    assert listen_socket.stat().st_mode & 0o777 == 0o600
    command = ["curl", "-sf", "--unix-socket", str(listen_socket), "http://agent/v2/models/digits/infer", "-d", "@-"]
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [5, 64], "data": X.tolist()}]}
    done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=True, timeout=20)
    assert json.loads(done.stdout)["outputs"][0]["data"] == EXPECTED["label"].tolist()


def test_the_unix_domain_socket_is_gone_at_the_end_and_taken_over_from_the_dead(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="door") as folder:
        path = Path(folder) / "agent.sock"
        agent = AgentProcess(tmp_path, listen_socket=path, listen_socket_mode="0660")
        try:
            agent.start()
            agent.kill()
            assert path.exists(), "nobody could remove it"
            agent.start()
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
                assert client.get("http://agent/v2/health/live").status_code == 200
            second = AgentProcess(tmp_path / "second", listen_socket=path)
            assert second.spawn().wait(60) == 5
            assert "somebody listens there already" in second.log
            second.close()
            assert agent.stop() == 0
            assert not path.exists()
        finally:
            agent.close()


# ── datatypes ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_there_and_back(client: Any, binary: bool) -> None:
    given = []
    for datatype in ECHOED:
        values = examples(datatype)
        given.append(triton.InferInput(datatype.lower(), list(values.shape), datatype))
        given[-1].set_data_from_numpy(values, binary_data=binary)
    found = client.infer("echo", given, outputs=[wanted(f"{d.lower()}_again", binary=binary) for d in ECHOED])
    for datatype in ECHOED:
        assert found.get_output(f"{datatype.lower()}_again")["datatype"] == datatype
        again = found.as_numpy(f"{datatype.lower()}_again")
        assert again.dtype == examples(datatype).dtype
        assert again.tobytes() == examples(datatype).tobytes()


def test_bfloat16_is_taken_for_float32(client: Any) -> None:
    rough = X.astype(ml_dtypes.bfloat16)
    given = triton.InferInput("x", list(X.shape), "BF16")
    given.set_data_from_numpy(rough)
    found = client.infer("digits", [given]).as_numpy("probabilities")
    assert np.allclose(found, answers(make_model(0), rough.astype(np.float32))["probabilities"], atol=1e-5)


@curl
def test_a_body_without_json(agent: AgentProcess) -> None:
    command = ["curl", "-sf", f"{agent.url}/v2/models/digits/infer", "--data-binary", "@-"]
    command += ["-H", "Content-Type: application/octet-stream", "-H", "Inference-Header-Content-Length: 0"]
    done = subprocess.run(command, input=X[:1].tobytes(), capture_output=True, check=True, timeout=20)
    assert np.allclose(np.frombuffer(done.stdout[-40:], "<f4"), EXPECTED["probabilities"][0], atol=1e-5)


def test_classifications(client: Any) -> None:
    for binary in (True, False):
        found = client.infer("digits", [tensor()], outputs=[wanted("probabilities", binary=binary, classes=2)])
        assert found.get_output("probabilities")["datatype"] == "BYTES"
        classes = found.as_numpy("probabilities")
        assert classes.shape == (5, 2)
        for row, label, probabilities in zip(classes, EXPECTED["label"], EXPECTED["probabilities"], strict=True):
            value, index, name = (row[0].decode() if binary else row[0]).split(":")
            assert (int(index), name) == (label, str(label))
            assert float(value) == pytest.approx(probabilities.max(), abs=1e-4)


# ── compression ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("there", [None, "gzip", "deflate"])
@pytest.mark.parametrize("back", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests_and_answers(client: Any, there: str | None, back: str | None, binary: bool) -> None:
    rows = np.tile(X, (60, 1))
    found = client.infer(
        "digits",
        [tensor(rows, binary=binary)],
        outputs=[wanted("probabilities", binary=binary), wanted("label", binary=binary)],
        request_compression_algorithm=there,
        response_compression_algorithm=back,
    )
    assert np.allclose(found.as_numpy("probabilities"), np.tile(EXPECTED["probabilities"], (60, 1)), atol=1e-5)
    assert (found.as_numpy("label") == np.tile(EXPECTED["label"], 60)).all()


def test_an_answer_is_compressed_where_it_is_worth_it(agent: AgentProcess) -> None:
    def ask(rows: int) -> httpx.Response:
        data = np.tile(X, (rows, 1)).ravel().tolist()
        request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [5 * rows, 64], "data": data}]}
        body = gzip.compress(json.dumps(request).encode())
        headers = {"Accept-Encoding": "gzip", "Content-Encoding": "gzip"}
        return agent.http.post("/v2/models/digits/infer", content=body, headers=headers)

    assert ask(20).headers["content-encoding"] == "gzip"
    assert ask(20).json()["outputs"][0]["shape"] == [100]
    assert "content-encoding" not in ask(1).headers


# ── configuration, statistics, repository ─────────────────────────────────────────────────────


def test_the_configuration_of_a_model(client: Any) -> None:
    for config in (client.get_model_config("digits"), client.get_model_config("digits", "7")):
        assert (config["name"], config["backend"]) == ("digits", "onnxruntime")
        assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 64]}]
        assert config["instance_group"][0]["count"] >= 1
    with pytest.raises(utils.InferenceServerException, match="there is no model"):
        client.get_model_config("digits", "8")


def test_statistics_count_what_is_asked(client: Any) -> None:
    (before,) = client.get_inference_statistics("digits")["model_stats"]
    client.infer("digits", [tensor()])
    (after,) = client.get_inference_statistics("digits", "7")["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 5
    assert after["execution_count"] - before["execution_count"] == 1
    success = [stats["inference_stats"]["success"] for stats in (before, after)]
    assert success[1]["count"] - success[0]["count"] == 1
    assert success[1]["ns"] > success[0]["ns"]
    assert {s["name"] for s in client.get_inference_statistics()["model_stats"]} >= {"digits", "echo"}
    with pytest.raises(utils.InferenceServerException, match="there is no model nothing"):
        client.get_inference_statistics("nothing")


def test_models_are_listed_unloaded_and_loaded(client: Any) -> None:
    def states() -> dict[str, str]:
        return {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}

    assert states() == {"digits": "READY", "other": "READY", "echo": "READY"}
    client.unload_model("other")
    assert states()["other"] == "UNAVAILABLE"
    assert not client.is_model_ready("other")
    with pytest.raises(utils.InferenceServerException, match="there is no model other"):
        client.infer("other", [tensor()])
    client.load_model("other")
    assert client.is_model_ready("other")
    found = client.infer("other", [tensor()]).as_numpy("probabilities")
    assert np.allclose(found, answers(make_model(3), X)["probabilities"], atol=1e-5)
    with pytest.raises(utils.InferenceServerException, match="parameters cannot be given"):
        client.load_model("other", config='{"backend": "python"}')
    with pytest.raises(utils.InferenceServerException, match="the channel's model"):
        client.unload_model("digits")


def test_what_is_closed_unless_it_is_allowed(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path).start()
    client = triton.InferenceServerClient(f"127.0.0.1:{agent.port}")
    try:
        with pytest.raises(utils.InferenceServerException, match="repository_api allows it"):
            client.load_model("digits")
        with pytest.raises(utils.InferenceServerException, match="shared_memory allows it"):
            client.register_system_shared_memory("frame", "/edgeloop-frame", 64)
    finally:
        client.close()
        agent.close()


# ── shared memory ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def region() -> Iterator[Any]:
    key = f"edgeloop-{uuid.uuid4().hex[:12]}"
    region = shm.create_shared_memory_region("frame", key, 8192)
    region.key = f"/{key}"
    yield region
    shm.destroy_shared_memory_region(region)


def test_tensors_in_shared_memory(client: Any, region: Any) -> None:
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    shm.set_shared_memory_region(region, [X])
    client.register_system_shared_memory("frame", region.key, 8192)
    assert client.get_system_shared_memory_status() == [
        {"name": "frame", "key": region.key, "offset": 0, "byte_size": 8192}
    ]
    given = triton.InferInput("x", list(X.shape), "FP32")
    given.set_shared_memory("frame", X.nbytes)
    probabilities = triton.InferRequestedOutput("probabilities")
    probabilities.set_shared_memory("frame", 400, offset=4096)
    for _ in range(3):
        found = client.infer("digits", [given], outputs=[probabilities, wanted("label")])
        assert (found.as_numpy("label") == EXPECTED["label"]).all()
        assert found.get_output("probabilities")["shape"] == [5, 10]
        there = shm.get_contents_as_numpy(region, np.float32, [5, 10], offset=4096)
        assert np.allclose(there, EXPECTED["probabilities"], atol=1e-5)
        there[:] = 0
    # The next frame: nothing but its bytes has to be written.
    shm.set_shared_memory_region(region, [X[::-1].copy()])
    assert (client.infer("digits", [given]).as_numpy("label") == EXPECTED["label"][::-1]).all()
    client.unregister_system_shared_memory("frame")
    assert client.get_system_shared_memory_status() == []
    with pytest.raises(utils.InferenceServerException, match="register it first"):
        client.infer("digits", [given])


def test_what_shared_memory_refuses(client: Any, region: Any) -> None:
    with pytest.raises(utils.InferenceServerException, match="has 8192 bytes"):
        client.register_system_shared_memory("frame", region.key, 8193)
    with pytest.raises(utils.InferenceServerException, match="cannot be opened"):
        client.register_system_shared_memory("frame", "/edgeloop-absent", 64)
    with pytest.raises(utils.InferenceServerException, match="is not allowed"):
        client.register_system_shared_memory("frame", "/other", 64)
    with pytest.raises(utils.InferenceServerException, match="CUDA shared memory is not supported"):
        client.register_cuda_shared_memory("frame", b"aGFuZGxl", 0, 64)
    client.register_system_shared_memory("frame", region.key, 1000, offset=100)
    given = triton.InferInput("x", list(X.shape), "FP32")
    given.set_shared_memory("frame", X.nbytes)
    with pytest.raises(utils.InferenceServerException, match="has 1000 bytes"):
        client.infer("digits", [given])
    client.unregister_system_shared_memory()


# ── the other client ──────────────────────────────────────────────────────────────────────────


def test_the_asyncio_client(agent: AgentProcess) -> None:
    aio: Any = pytest.importorskip("tritonclient.http.aio", reason="pip install aiohttp")

    async def run() -> None:
        async with aio.InferenceServerClient(f"127.0.0.1:{agent.port}") as client:
            assert await client.is_server_ready()
            waiting = [client.infer("digits", [tensor(X[:rows])], request_id=str(rows)) for rows in (1, 2, 3, 4, 5)]
            for rows, found in enumerate(await asyncio.gather(*waiting), 1):
                assert found.get_response()["id"] == str(rows)
                assert (found.as_numpy("label") == EXPECTED["label"][:rows]).all()

    asyncio.run(run())
