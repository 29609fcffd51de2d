"""What is at which address: the protocol's answers, and edgeloop's own."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from multiprocessing import shared_memory
from typing import Any

import numpy as np
import pytest

from edge_agent.serving import dataplane
from edge_agent.serving.feedback import MAX_FEEDBACK
from edge_agent.serving.model_path import LONGEST_PATH, ModelPath, model_path
from edge_agent.serving.routes import EXTENSIONS
from edgeloop import __version__
from edgeloop.package import Package
from tests.doubles.door import Client, NotingRecorder, ServingKit, connected, loaded
from tests.integration.hub_process import wait_for
from tests.unit.serving.test_dataplane import Double

X = np.linspace(0, 1, 64, dtype=np.float32)
JSON_TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": X.tolist()}
INFER = "/v2/models/digits/infer"


@pytest.fixture(scope="module")
def recorder() -> NotingRecorder:
    return NotingRecorder("probabilities", "features")


@pytest.fixture(scope="module")
def kit(first: Package, recorder: NotingRecorder) -> Iterator[ServingKit]:
    kit = ServingKit(first, recorder)
    yield kit
    kit.close()


@pytest.fixture
def client(kit: ServingKit) -> Iterator[Client]:
    with connected(kit.port) as client:
        yield client


def ask(client: Client, path: str = INFER, **request: Any) -> tuple[int, Any]:
    got = client.request("POST", path, json.dumps(request).encode())
    return got.status, json.loads(got.body)


def infer(client: Client, **request: Any) -> tuple[int, Any]:
    return ask(client, inputs=[JSON_TENSOR], **request)


def test_the_server_says_what_it_is(client: Client) -> None:
    got = client.request("GET", "/v2")
    assert json.loads(got.body) == {"name": "edgeloop", "version": __version__, "extensions": list(EXTENSIONS)}
    assert "binary_tensor_data" in EXTENSIONS
    assert got.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/digits/ready",
        "/v2/models/digits/versions/1/ready",
        "/v2/health/ready/",
        "/v2/models/digits/ready?verbose=1",
        "/v2/models/%64igits/ready",
    ],
)
def test_it_is_ready(client: Client, path: str) -> None:
    assert client.request("GET", path).status == 200
    assert client.request("HEAD", path).status == 200


@pytest.mark.parametrize("path", ["/v2/models/digits", "/v2/models/digits/versions/1", "/v2/models/digits/"])
def test_the_model_is_described_without_its_features(client: Client, path: str) -> None:
    assert json.loads(client.request("GET", path).body) == {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        ],
    }


def test_inference_in_json(client: Client) -> None:
    status, answer = infer(client, id="mine")
    assert status == 200
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "1", "mine")
    label, probabilities = answer["outputs"]
    assert (label["datatype"], label["shape"]) == ("INT64", [1])
    assert probabilities["shape"] == [1, 10]
    assert label["data"] == [int(np.argmax(probabilities["data"]))]


def test_parameters_of_a_request_say_its_segment(client: Client, recorder: NotingRecorder) -> None:
    recorder.segment_field = "camera"
    try:
        for parameters in ({"camera": "north"}, {"camera": "south"}, {}):
            assert infer(client, parameters=parameters)[0] == 200
        assert [segment for segment, _, _ in recorder.measured[-3:]] == ["north", "south", ""]
    finally:
        recorder.segment_field = None


def test_an_answer_always_has_an_id(client: Client) -> None:
    assert infer(client)[1]["id"].startswith("kit-")


def test_outputs_are_binary_where_that_is_wanted(client: Client) -> None:
    outputs = [
        {"name": "features", "parameters": {"binary_data": True}},
        {"name": "label"},
        {"name": "probabilities", "parameters": {"binary_data": True}},
    ]
    body = json.dumps({"inputs": [JSON_TENSOR], "outputs": outputs}).encode()
    got = client.request("POST", INFER, body)
    assert got.headers["content-type"] == "application/octet-stream"
    length = int(got.headers["inference-header-content-length"])
    head = json.loads(got.body[:length])
    assert [output["name"] for output in head["outputs"]] == ["features", "label", "probabilities"]
    assert [output.get("parameters") for output in head["outputs"]] == [
        {"binary_data_size": 64},
        None,
        {"binary_data_size": 40},
    ]
    probabilities = np.frombuffer(got.body[length + 64 :], "<f4")
    assert probabilities.argmax() == head["outputs"][1]["data"][0]
    everything = json.dumps({"inputs": [JSON_TENSOR], "parameters": {"binary_data_output": True}}).encode()
    got = client.request("POST", INFER, everything)
    assert len(got.body) == int(got.headers["inference-header-content-length"]) + 8 + 40


def test_a_body_without_json_is_the_models_only_input(client: Client) -> None:
    """Triton's "raw binary request": all outputs come back as binary."""
    for rows in (1, 3):
        values = np.tile(X, (rows, 1))
        got = client.request("POST", INFER, values.tobytes(), {"Inference-Header-Content-Length": "0"})
        assert got.status == 200
        head = json.loads(got.body[: int(got.headers["inference-header-content-length"])])
        assert [output["shape"] for output in head["outputs"]] == [[rows], [rows, 10]]
        assert [output["parameters"]["binary_data_size"] for output in head["outputs"]] == [8 * rows, 40 * rows]
    for body in (values.tobytes()[:-1], b"", b"{}"):
        got = client.request("POST", INFER, body, {"Inference-Header-Content-Length": "0"})
        assert got.status == 400
        assert json.loads(got.body)["error"]
    got = client.request("POST", "/v2/models/other/infer", values.tobytes(), {"Inference-Header-Content-Length": "0"})
    assert got.status == 404


def test_an_output_as_classes_has_the_packages_labels(client: Client) -> None:
    outputs = [
        {"name": "probabilities", "parameters": {"classification": 3}},
        {"name": "features", "parameters": {"classification": 1}},
        {"name": "label", "parameters": {}},
    ]
    classes, features, label = infer(client, outputs=outputs)[1]["outputs"]
    assert (classes["name"], classes["datatype"], classes["shape"]) == ("probabilities", "BYTES", [1, 3])
    first = int(label["data"][0])
    assert classes["data"][0].endswith(f":{first}:{first}"), "the test package names class 7 '7'"
    assert features["data"][0].count(":") == 1, "features have no labels"
    outputs[0]["parameters"] = {"classification": 3, "binary_data": True}
    body = json.dumps({"inputs": [JSON_TENSOR], "outputs": outputs[:1]}).encode()
    got = client.request("POST", INFER, body)
    length = int(got.headers["inference-header-content-length"])
    assert classes["data"][0].encode() in got.body[length:]


def test_inputs_and_outputs_in_shared_memory(first: Package) -> None:
    kit = ServingKit(first, memory=["/edgeloop-"])
    memory = shared_memory.SharedMemory(f"edgeloop-{uuid.uuid4().hex[:12]}", create=True, size=4096)
    try:
        with connected(kit.port) as client:
            kit.memory.register("m", memory.name, 0, 4096)
            memory.buf[256:512] = X.tobytes()
            where = {"shared_memory_region": "m", "shared_memory_offset": 256, "shared_memory_byte_size": 256}
            there = {"shared_memory_region": "m", "shared_memory_offset": 1024, "shared_memory_byte_size": 400}
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "parameters": where}
            outputs = [{"name": "probabilities", "parameters": there}, {"name": "label"}]
            status, found = ask(client, inputs=[tensor], outputs=outputs)
            assert status == 200
            probabilities, label = found["outputs"]
            assert probabilities["parameters"] == {**there, "shared_memory_byte_size": 40}
            assert "data" not in probabilities
            assert np.frombuffer(memory.buf[1024:1064], np.float32).argmax() == label["data"][0]
            there["shared_memory_byte_size"] = 39
            assert ask(client, inputs=[tensor], outputs=outputs)[0] == 400
            where["shared_memory_byte_size"] = 252
            assert ask(client, inputs=[tensor])[0] == 400
            kit.memory.unregister(None)
            status, found = ask(client, inputs=[tensor])
            assert (status, "register it first" in found["error"]) == (400, True)
    finally:
        kit.close()
        memory.close()
        memory.unlink()


def test_an_unnamed_media_type_and_an_odd_one_are_the_same(client: Client) -> None:
    body = json.dumps({"inputs": [JSON_TENSOR]}).encode()
    for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "application/json"}):
        assert client.request("POST", INFER, body, headers).status == 200


def test_an_empty_list_of_outputs_means_the_usual_ones(client: Client) -> None:
    assert [output["name"] for output in infer(client, outputs=[])[1]["outputs"]] == ["label", "probabilities"]


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/", 404, "docs/reference"),
        ("GET", "/v2/models/other", 404, "there is no model other"),
        ("GET", "/v2/models/digits/versions/9", 404, "version 9"),
        ("GET", "/v2/models/digits/versions/9/ready", 404, "version 9"),
        ("POST", "/v2/models/other/infer", 404, "there is no model other"),
        ("POST", "/v2/models/digits/versions/9/infer", 404, "version 9"),
        ("GET", "/v2/models/", 404, "there is no model"),
        ("GET", "/v2/models/digits/nothing", 404, "there is nothing at"),
        ("GET", INFER, 405, "use POST"),
        ("POST", "/v2/models/digits", 405, "use GET"),
        ("POST", "/v2/health/live", 405, "POST is not for /v2/health/live; use GET"),
        ("DELETE", "/edgeloop/v1/feedback", 405, "DELETE is not for /edgeloop/v1/feedback; use POST"),
    ],
)
def test_what_is_not_there(client: Client, method: str, path: str, status: int, said: str) -> None:
    body = json.dumps({"inputs": [JSON_TENSOR]}).encode() if method == "POST" else b""
    got = client.request(method, path, body)
    assert (got.status, said in json.loads(got.body)["error"]) == (status, True), got


def test_a_path_that_is_too_long_for_any_model_is_not_remembered(client: Client) -> None:
    before = model_path.cache_info().currsize
    got = client.request("GET", f"/v2/models/{'m' * LONGEST_PATH}")
    assert (got.status, "4096 characters at most" in json.loads(got.body)["error"]) == (404, True)
    assert model_path.cache_info().currsize == before


def test_bodies_may_come_compressed(client: Client) -> None:
    body = gzip.compress(json.dumps({"inputs": [JSON_TENSOR]}).encode())
    assert client.request("POST", INFER, body, {"Content-Encoding": "gzip"}).status == 200


def test_paths_are_taken_apart_and_decoded() -> None:
    assert model_path("/v2/models/a%2Fb/versions/1.0%2B2/infer") == ModelPath("a/b", "1.0+2", ("infer",))
    assert model_path("/v2/models/a/infer/") == ModelPath("a", None, ("infer",))
    assert model_path("/v2/models/a/versions") == ModelPath("a", None, ("versions",))


def test_feedback_says_what_became_of_each_label(client: Client, recorder: NotingRecorder) -> None:
    infer(client, id="known")
    items = [{"id": "known", "label": 3}, {"id": "known", "label": "three", "index": 0}, {"id": "strange", "label": 1}]
    got = client.request("POST", "/edgeloop/v1/feedback", json.dumps({"items": items}).encode())
    assert got.status == 200
    assert json.loads(got.body) == {"accepted": 2, "unknown": ["strange"], "duplicate": [], "invalid": []}
    assert [(item.label, item.index) for item in recorder.items[-3:]] == [(3, 0), ("three", 0), (1, 0)]


def test_a_single_unknown_label_is_a_404(client: Client) -> None:
    got = client.request("POST", "/edgeloop/v1/feedback", b'{"items": [{"id": "strange", "label": 1}]}')
    assert got.status == 404
    assert json.loads(got.body)["unknown"] == ["strange"]
    assert "error" in json.loads(got.body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"items": []}',
        b'{"items": {}}',
        b'{"items": [1]}',
        b'{"items": [{"id": "a"}]}',
        b'{"items": [{"label": 1}]}',
        b'{"items": [{"id": 1, "label": 1}]}',
        b'{"items": [{"id": "a", "label": true}]}',
        b'{"items": [{"id": "a", "label": 1.5}]}',
        b'{"items": [{"id": "a", "label": null}]}',
        b'{"items": [{"id": "a", "label": 1, "index": -1}]}',
        b'{"items": [{"id": "a", "label": 1, "index": "0"}]}',
        b'{"items": [{"id": "a", "label": 1, "lable": 1}]}',
        json.dumps({"items": [{"id": "a", "label": 1}] * (MAX_FEEDBACK + 1)}).encode(),
    ],
)
def test_feedback_that_is_none(client: Client, recorder: NotingRecorder, body: bytes) -> None:
    before = len(recorder.items)
    got = client.request("POST", "/edgeloop/v1/feedback", body)
    assert got.status == 400
    assert json.loads(got.body)["error"]
    assert len(recorder.items) == before, "all or nothing"


def test_status_flush_and_metrics(client: Client, kit: ServingKit) -> None:
    assert json.loads(client.request("GET", "/edgeloop/v1/status").body) == {"device": "test"}
    assert client.request("POST", "/edgeloop/v1/flush").status == 200
    assert kit.operations.flushed == 1
    got = client.request("GET", "/metrics")
    assert got.headers["content-type"].startswith("text/plain")
    assert b"edge_agent_predictions_total" in got.body


def test_without_a_release_it_lives_and_is_not_ready() -> None:
    kit = ServingKit(None)
    try:
        with connected(kit.port) as client:
            assert client.request("GET", "/v2/health/live").status == 200
            for path in ("/v2/health/ready", "/v2/models/digits", "/v2/models/digits/ready"):
                assert client.request("GET", path).status == 503
            assert client.request("POST", INFER, json.dumps({"inputs": [JSON_TENSOR]}).encode()).status == 503
            got = client.request("POST", "/edgeloop/v1/feedback", b'{"items": [{"id": "a", "label": 1}]}')
            assert got.status == 400
            assert "does not observe" in json.loads(got.body)["error"]
    finally:
        kit.close()


def test_what_waits_for_a_client_that_has_gone_is_never_run(first: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "INLINE_NS", 0)
    kit, double = ServingKit(None), Double(loaded(first))
    body = json.dumps({"inputs": [JSON_TENSOR]}).encode()
    asked = f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    try:
        kit.plane.switch(double.release)
        double.gate.clear()
        while double.running.acquire(blocking=False):  # its warm-up
            pass
        with connected(kit.port) as patient:
            patient.send(asked)
            assert double.running.acquire(timeout=10)
            others = [Client(kit.port).send(asked) for _ in range(5)]
            wait_for(lambda: kit.running.call(lambda: kit.running.door.held_bytes) == 6 * len(body), 10, "them to wait")
            for other in others:
                other.close()
            wait_for(lambda: kit.running.call(lambda: len(kit.running.door.connections)) == 1, 10, "them to be gone")
            for _ in range(5):  # a cancellation takes a few rounds of the event loop
                kit.running.call(lambda: None)
            double.gate.set()
            assert patient.answer().status == 200
        assert not double.running.acquire(timeout=0.2)
        (stats,) = kit.plane.statistics("digits", None)
        assert stats["inference_stats"]["success"]["count"] == 1
    finally:
        double.gate.set()
        kit.close()
