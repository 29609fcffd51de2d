"""tritonclient, another project's client of the Open Inference Protocol, against the gRPC door of a running agent."""

from __future__ import annotations

import asyncio
import os
import queue
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.doubles.echo_package import ECHOED, examples, make_echo_package
from tests.doubles.installed import install
from tests.doubles.packages import answers, make_model, make_package
from tests.integration.agent_process import AgentProcess
from tests.integration.brokers import free_port

triton: Any = pytest.importorskip("tritonclient.grpc", reason="pip install 'tritonclient[grpc]'")
http: Any = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
utils: Any = pytest.importorskip("tritonclient.utils")
shm: Any = pytest.importorskip("tritonclient.utils.shared_memory")
grpc: Any = pytest.importorskip("grpc", reason="pip install 'edgeloop[agent,grpc]'")

X = np.random.default_rng(11).random((5, 64), dtype=np.float32)
EXPECTED = answers(make_model(0), X)
PORT = free_port()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder: Path = tmp_path_factory.mktemp("agent")
    models = folder / "models"
    models.mkdir()
    make_package(models / "other", name="other", version="1", seed=3)
    make_echo_package(models / "echo")
    agent = AgentProcess(
        folder, grpc_port=PORT, model_repository=models, repository_api=True, shared_memory=["/edgeloop-test-"]
    )
    install(make_package(folder / "package", name="digits", version="7"), agent.data)
    yield agent.start(ready=True)
    agent.close()


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[Any]:
    client = triton.InferenceServerClient(f"127.0.0.1:{PORT}")
    yield client
    client.close()


def tensor(values: Any = X, name: str = "x") -> Any:
    given = triton.InferInput(name, list(values.shape), utils.np_to_triton_dtype(values.dtype))
    given.set_data_from_numpy(values)
    return given


def wanted(*names: str) -> list[Any]:
    return [triton.InferRequestedOutput(name) for name in names]


def code(error: pytest.ExceptionInfo[Any]) -> str:
    return str(error.value.status()).removeprefix("StatusCode.")


# ── health and metadata ───────────────────────────────────────────────────────────────────────


def test_the_line_that_the_agent_starts_with_says_where_it_listens(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, grpc_port=0)
    process = agent.spawn()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split("grpc://")[1].strip()
        assert line.startswith(f"edge-agent dev-1 serves http://127.0.0.1:{agent.port}/v2 and grpc://127.0.0.1:")
        with triton.InferenceServerClient(address) as client:
            assert client.is_server_live()
            assert not client.is_server_ready(), "no release serves yet"
            assert not client.is_model_ready("digits")
            with pytest.raises(utils.InferenceServerException, match="no release serves yet") as error:
                client.infer("digits", [tensor()])
            assert code(error) == "UNAVAILABLE"
    finally:
        agent.close()


def test_live_and_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "7")
    assert not client.is_model_ready("digits", "8")
    assert not client.is_model_ready("nothing")


def test_server_and_model_metadata(client: Any, agent: AgentProcess) -> None:
    server = client.get_server_metadata(as_json=True)
    assert server == agent.http.get("/v2").json()
    for version in ("", "7"):
        found = client.get_model_metadata("digits", version)
        assert (found.name, list(found.versions)) == ("digits", ["7"])
        assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [("x", "FP32", [-1, 64])]
        assert [t.name for t in found.outputs] == ["label", "probabilities"]
    with pytest.raises(utils.InferenceServerException, match="there is no model nothing") as error:
        client.get_model_metadata("nothing")
    assert code(error) == "NOT_FOUND"


def test_model_configuration(client: Any) -> None:
    config = client.get_model_config("digits", "7").config
    assert (config.name, config.backend) == ("digits", "onnxruntime")
    assert [(t.name, list(t.dims)) for t in config.input] == [("x", [-1, 64])]
    assert config.input[0].data_type == 11, "TYPE_FP32"
    assert config.instance_group[0].count >= 1
    with pytest.raises(utils.InferenceServerException, match="there is no model"):
        client.get_model_config("digits", "8")


def test_statistics_count_what_is_asked(client: Any) -> None:
    before = client.get_inference_statistics("digits").model_stats[0]
    client.infer("digits", [tensor()])
    after = client.get_inference_statistics("digits", "7").model_stats[0]
    assert after.inference_count - before.inference_count == 5
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert {s.name for s in client.get_inference_statistics().model_stats} >= {"digits"}


# ── inference ─────────────────────────────────────────────────────────────────────────────────


def test_inference(client: Any) -> None:
    found = client.infer(
        "digits", [tensor()], outputs=wanted("probabilities", "label"), request_id="mine", model_version="7"
    )
    assert np.allclose(found.as_numpy("probabilities"), EXPECTED["probabilities"], atol=1e-5)
    assert (found.as_numpy("label") == EXPECTED["label"]).all()
    assert found.as_numpy("label").dtype == np.int64
    response = found.get_response()
    assert (response.id, response.model_name, response.model_version) == ("mine", "digits", "7")
    assert [output.name for output in response.outputs] == ["probabilities", "label"]


def test_the_answer_is_that_of_http_bit_for_bit(client: Any, agent: AgentProcess) -> None:
    other = http.InferenceServerClient(f"127.0.0.1:{agent.port}")
    given = http.InferInput("x", list(X.shape), "FP32")
    given.set_data_from_numpy(X)
    names = ("label", "probabilities", "features")
    over_http = other.infer("digits", [given], outputs=[http.InferRequestedOutput(name) for name in names])
    over_grpc = client.infer("digits", [tensor()], outputs=wanted(*names))
    for name in names:
        assert over_grpc.as_numpy(name).tobytes() == over_http.as_numpy(name).tobytes()
        assert over_grpc.as_numpy(name).shape == over_http.as_numpy(name).shape
    other.close()


def test_without_outputs_everything_but_the_features_comes(client: Any) -> None:
    found = client.infer("digits", [tensor()]).get_response()
    assert [output.name for output in found.outputs] == ["label", "probabilities"]
    assert found.id, "one is made"


def test_typed_contents_are_answered_with_typed_contents(client: Any) -> None:
    pb = triton.service_pb2
    request = pb.ModelInferRequest(model_name="digits")
    given = request.inputs.add(name="x", datatype="FP32", shape=X.shape)
    given.contents.fp32_contents.extend(X.ravel().tolist())
    response = client._client_stub.ModelInfer(request)
    label, probabilities = response.outputs
    assert not response.raw_output_contents
    assert list(label.contents.int64_contents) == EXPECTED["label"].tolist()
    raw = client.infer("digits", [tensor()]).as_numpy("probabilities")
    assert np.array(probabilities.contents.fp32_contents, np.float32).tobytes() == raw.tobytes()


def test_every_datatype_there_and_back(client: Any) -> None:
    pb = triton.service_pb2
    raw = pb.ModelInferRequest(model_name="echo")
    for datatype in ECHOED:
        raw.inputs.add(name=datatype.lower(), datatype=datatype, shape=(2, 3))
        raw.raw_input_contents.append(examples(datatype).tobytes())
    response = client._client_stub.ModelInfer(raw)
    assert [output.datatype for output in response.outputs] == list(ECHOED)
    for datatype, again in zip(ECHOED, response.raw_output_contents, strict=True):
        assert again == examples(datatype).tobytes()


def test_bfloat16_is_taken_for_float32(client: Any) -> None:
    rough = (X.view(np.uint32) >> 16).astype("<u2")
    request = triton.service_pb2.ModelInferRequest(model_name="digits", raw_input_contents=[rough.tobytes()])
    request.inputs.add(name="x", datatype="BF16", shape=X.shape)
    exact = (rough.astype(np.uint32) << 16).view(np.float32)
    found = client._client_stub.ModelInfer(request)
    assert found.raw_output_contents[1] == client.infer("digits", [tensor(exact)]).as_numpy("probabilities").tobytes()


def test_classifications(client: Any) -> None:
    found = client.infer("digits", [tensor()], outputs=[triton.InferRequestedOutput("probabilities", class_count=2)])
    assert found.get_output("probabilities").datatype == "BYTES"
    for row, label in zip(found.as_numpy("probabilities"), EXPECTED["label"], strict=True):
        assert row[0].decode().split(":")[1:] == [str(label), str(label)]


def test_the_asyncio_client(agent: AgentProcess) -> None:
    aio: Any = pytest.importorskip("tritonclient.grpc.aio")

    async def asking() -> AsyncIterator[Any]:
        for rows in (1, 2, 3):
            yield {"model_name": "digits", "inputs": [tensor(X[:rows])], "request_id": str(rows)}

    async def run() -> None:
        async with aio.InferenceServerClient(f"127.0.0.1:{PORT}") as client:
            waiting = [client.infer("digits", [tensor(X[:rows])]) for rows in (1, 2, 3, 4, 5)]
            for rows, found in enumerate(await asyncio.gather(*waiting), 1):
                assert (found.as_numpy("label") == EXPECTED["label"][:rows]).all()
            streamed = [(result, error) async for result, error in client.stream_infer(asking())]
            assert [error for _, error in streamed] == [None] * 3
            assert [result.get_response().id for result, _ in streamed] == ["1", "2", "3"]

    asyncio.run(run())


def test_asynchronous_inference(client: Any) -> None:
    done: queue.Queue[Any] = queue.Queue()
    for rows in (1, 2, 3, 4, 5):
        client.async_infer("digits", [tensor(X[:rows])], lambda result, error: done.put((result, error)))
    for _ in range(5):
        result, error = done.get(timeout=20)
        assert error is None
        label = result.as_numpy("label")
        assert (label == EXPECTED["label"][: len(label)]).all()


def test_a_stream_answers_in_order_and_survives_a_bad_request(client: Any) -> None:
    done: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: done.put((result, error)))
    for number in range(20):
        bad = number % 5 == 2
        client.async_stream_infer("nothing" if bad else "digits", [tensor(X[: number % 4 + 1])], request_id=str(number))
    for number in range(20):
        result, error = done.get(timeout=20)
        if number % 5 == 2:
            assert "there is no model nothing" in str(error)
            continue
        assert error is None
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param
        assert (result.as_numpy("label") == EXPECTED["label"][: number % 4 + 1]).all()
    client.stop_stream()
    assert done.empty()


def test_parameters_compression_and_headers_are_taken(client: Any) -> None:
    for compression in (None, "gzip", "deflate"):
        found = client.infer(
            "digits",
            [tensor()],
            priority=1,
            timeout=1_000_000,
            client_timeout=20,
            headers={"x-trace": "1"},
            parameters={"note": "x"},
            compression_algorithm=compression,
        )
        assert found.as_numpy("label").shape == (5,)


def test_errors_carry_code_and_reason_as_over_http(client: Any, agent: AgentProcess) -> None:
    over_http = http.InferenceServerClient(f"127.0.0.1:{agent.port}")
    for model, values, outputs, found in (
        ("digits", X.astype(np.float64), (), "INVALID_ARGUMENT"),
        ("digits", X[:, :3], (), "INVALID_ARGUMENT"),
        ("digits", X, ("nothing",), "INVALID_ARGUMENT"),
        ("nothing", X, (), "NOT_FOUND"),
    ):
        with pytest.raises(utils.InferenceServerException) as error:
            client.infer(model, [tensor(values)], outputs=wanted(*outputs) or None)
        assert code(error) == found
        given = http.InferInput("x", list(values.shape), utils.np_to_triton_dtype(values.dtype))
        given.set_data_from_numpy(values)
        with pytest.raises(utils.InferenceServerException) as same:
            over_http.infer(model, [given], outputs=[http.InferRequestedOutput(name) for name in outputs] or None)
        assert error.value.message() == same.value.message()
    over_http.close()


def test_many_at_once(agent: AgentProcess) -> None:
    def work(seed: int) -> None:
        x = np.random.default_rng(seed).random((seed + 1, 64), dtype=np.float32)
        expected = answers(make_model(0), x)["probabilities"]
        with triton.InferenceServerClient(f"127.0.0.1:{PORT}") as client:
            for _ in range(20):
                found = client.infer("digits", [tensor(x)]).as_numpy("probabilities")
                assert np.allclose(found, expected, atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_the_prediction_can_be_labelled_by_its_id(client: Any, agent: AgentProcess) -> None:
    identity = client.infer("digits", [tensor()]).get_response().id
    got = agent.http.post("/edgeloop/v1/feedback", json={"items": [{"id": identity, "label": 3, "index": 4}]})
    assert got.json()["accepted"] == 1


# ── the model repository ──────────────────────────────────────────────────────────────────────


def states(client: Any) -> dict[str, str]:
    return {model.name: model.state for model in client.get_model_repository_index().models}


def test_models_are_listed_unloaded_and_loaded(client: Any) -> None:
    assert states(client) == {"digits": "READY", "echo": "READY", "other": "READY"}
    client.unload_model("other")
    assert states(client) == {"digits": "READY", "echo": "READY", "other": "UNAVAILABLE"}
    assert not client.is_model_ready("other")
    with pytest.raises(utils.InferenceServerException, match="there is no model other"):
        client.infer("other", [tensor()])
    client.load_model("other")
    assert client.is_model_ready("other")
    found = client.infer("other", [tensor()]).as_numpy("probabilities")
    assert np.allclose(found, answers(make_model(3), X)["probabilities"], atol=1e-5)


def test_what_the_repository_refuses(client: Any) -> None:
    with pytest.raises(utils.InferenceServerException) as error:
        client.load_model("nothing")
    assert code(error) == "NOT_FOUND"
    with pytest.raises(utils.InferenceServerException, match="the channel's model") as error:
        client.unload_model("digits")
    assert code(error) == "PERMISSION_DENIED"
    with pytest.raises(utils.InferenceServerException, match="parameters cannot be given") as error:
        client.load_model("other", config='{"backend": "python"}')
    assert code(error) == "INVALID_ARGUMENT"


def test_the_repository_is_closed_unless_it_is_allowed(tmp_path: Path) -> None:
    port = free_port()
    agent = AgentProcess(tmp_path, grpc_port=port).start()
    try:
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            for call in (lambda: client.load_model("digits"), lambda: client.unload_model("digits")):
                with pytest.raises(utils.InferenceServerException, match="repository_api") as error:
                    call()
                assert code(error) == "PERMISSION_DENIED"
    finally:
        agent.close()


# ── shared memory ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def region(client: Any) -> Iterator[Any]:
    """64 floats in, and room for ten out."""
    handle = shm.create_shared_memory_region("frame", f"/edgeloop-test-{os.getpid()}", 4096)
    client.register_system_shared_memory("frame", f"/edgeloop-test-{os.getpid()}", 4096)
    yield handle
    client.unregister_system_shared_memory()
    shm.destroy_shared_memory_region(handle)


def test_a_tensor_that_lies_in_shared_memory(client: Any, region: Any) -> None:
    for row in X:
        shm.set_shared_memory_region(region, [row])
        given = triton.InferInput("x", [1, 64], "FP32")
        given.set_shared_memory("frame", 256)
        output = triton.InferRequestedOutput("probabilities")
        output.set_shared_memory("frame", 40, offset=1024)
        found = client.infer("digits", [given], outputs=[output, *wanted("label")])
        described = found.get_output("probabilities")
        assert (described.datatype, list(described.shape)) == ("FP32", [1, 10])
        assert described.parameters["shared_memory_region"].string_param == "frame"
        lies = shm.get_contents_as_numpy(region, np.float32, [1, 10], offset=1024)
        raw = client.infer("digits", [tensor(row[None])], outputs=wanted("probabilities", "label"))
        assert lies.tobytes() == raw.as_numpy("probabilities").tobytes()
        assert found.as_numpy("label") == raw.as_numpy("label"), "it comes in the message"


def test_regions_are_listed_and_forgotten(client: Any, region: Any) -> None:
    regions = client.get_system_shared_memory_status().regions
    assert {name: (r.key, r.offset, r.byte_size) for name, r in regions.items()} == {
        "frame": (f"/edgeloop-test-{os.getpid()}", 0, 4096)
    }
    assert list(client.get_system_shared_memory_status("frame").regions) == ["frame"]
    with pytest.raises(utils.InferenceServerException) as error:
        client.get_system_shared_memory_status("other")
    assert code(error) == "NOT_FOUND"
    client.unregister_system_shared_memory("frame")
    assert not client.get_system_shared_memory_status().regions


def test_shared_memory_that_lies(client: Any, region: Any) -> None:
    def asked(name: str, size: int, offset: int = 0, out: int = 0) -> Any:
        given = triton.InferInput("x", [1, 64], "FP32")
        given.set_shared_memory(name, size, offset)
        outputs = wanted("probabilities")
        if out:
            outputs[0].set_shared_memory("frame", out, 4096 - out)
        return client.infer("digits", [given], outputs=outputs)

    for arguments, said in (
        (("other", 256), "there is no shared memory region"),
        (("frame", 255), "takes 256 bytes; there are 255"),
        (("frame", 256, 4000), "are not in it"),
        (("frame", 256, 1 << 62), "are not in it"),
        (("frame", 256, 0, 36), "an output has 40 bytes; 36 are set aside"),
    ):
        with pytest.raises(utils.InferenceServerException, match=said) as error:
            asked(*arguments)
        assert code(error) == "INVALID_ARGUMENT"
    assert asked("frame", 256).as_numpy("probabilities").shape == (1, 10)
    for key, size, found in (
        ("/edgeloop-test-none", 64, "INVALID_ARGUMENT"),
        ("/another-name", 64, "PERMISSION_DENIED"),
        (f"/edgeloop-test-{os.getpid()}", 1 << 40, "INVALID_ARGUMENT"),
    ):
        with pytest.raises(utils.InferenceServerException) as error:
            client.register_system_shared_memory("more", key, size)
        assert code(error) == found


def test_memory_of_a_gpu(client: Any) -> None:
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()
    with pytest.raises(utils.InferenceServerException, match="register system shared memory") as error:
        client.register_cuda_shared_memory("frame", b"aGFuZGxl", 0, 64)
    assert code(error) == "UNIMPLEMENTED"


# ── the life of the door ──────────────────────────────────────────────────────────────────────


def test_an_orderly_stop_ends_an_open_stream_and_the_agent_at_once(tmp_path: Path) -> None:
    port = free_port()
    agent = AgentProcess(tmp_path, grpc_port=port, stop_timeout_s=60.0)
    install(make_package(tmp_path / "package"), agent.data)
    agent.start(ready=True)
    done: queue.Queue[Any] = queue.Queue()
    try:
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            client.start_stream(lambda result, error: done.put((result, error)))
            client.async_stream_infer("digits", [tensor()])
            assert done.get(timeout=20)[1] is None
            start = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - start < 25, "it does not wait for clients that have nothing to ask"
            assert done.get(timeout=20)[1] is not None, "the client hears of it"
    finally:
        agent.close()


def test_a_port_that_is_taken_is_said(tmp_path: Path, agent: AgentProcess) -> None:
    second = AgentProcess(tmp_path, grpc_port=PORT)
    try:
        process = second.spawn()
        assert process.wait(60) == 5
        assert f"gRPC cannot be served: 127.0.0.1:{PORT} is taken" in second.log
        assert "set grpc_port to a free port" in second.log
    finally:
        second.close()


def test_a_unix_domain_socket_beside_the_port_or_alone(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="door") as short:  # pytest's own folders have longer names than fit
        path, port = Path(short) / "grpc.sock", free_port()
        agent = AgentProcess(tmp_path / "first", grpc_port=port, grpc_socket=path)
        agent.start()
        try:
            for address in (f"unix:{path}", f"127.0.0.1:{port}"):
                with triton.InferenceServerClient(address) as client:
                    assert client.is_server_live()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            second = AgentProcess(tmp_path / "second", grpc_socket=path)
            assert second.spawn().wait(60) == 5
            assert "somebody listens there already" in second.log
            second.close()
            agent.kill()
            assert path.exists(), "a killed agent leaves it behind"
            third = AgentProcess(tmp_path / "third", grpc_socket=path).start()
            with triton.InferenceServerClient(f"unix:{path}") as client:
                assert client.is_server_live()
            assert third.stop() == 0
            assert not path.exists()
            third.close()
        finally:
            agent.close()


def test_without_grpcio_the_setting_is_an_error_that_names_the_extra(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "found = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: None if name == 'grpc' else found(name, *rest)\n"
    )
    paths = os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH", "")]))
    agent = AgentProcess(tmp_path, grpc_port=0)
    try:
        process = agent.spawn(PYTHONPATH=paths)
        assert process.wait(60) == 3
        assert "grpc_port: it needs grpcio" in agent.log
        assert "pip install 'edgeloop[agent,grpc]'" in agent.log
    finally:
        agent.close()
