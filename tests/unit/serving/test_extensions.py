"""The protocol's extensions, address by address: statistics, configuration, model repository, shared memory."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest

from edgeloop.package import Package
from tests.doubles.door import Client, ServingKit, connected
from tests.doubles.packages import make_package

REGION = "/v2/systemsharedmemory/region"


@pytest.fixture(scope="module")
def kit(first: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingKit]:
    """Everything is allowed."""
    folder: Path = tmp_path_factory.mktemp("repository")
    make_package(folder / "extra", name="extra", version="3")
    kit = ServingKit(first, repository=folder, memory=["/edgeloop-"])
    yield kit
    kit.close()


@pytest.fixture
def client(kit: ServingKit) -> Iterator[Client]:
    with connected(kit.port) as client:
        yield client


@pytest.fixture
def strict(first: Package) -> Iterator[Client]:
    """Nothing is allowed, which is the default."""
    kit = ServingKit(first)
    with connected(kit.port) as client:
        yield client
    kit.close()


@pytest.fixture
def memory() -> Iterator[shared_memory.SharedMemory]:
    memory = shared_memory.SharedMemory(f"edgeloop-{uuid.uuid4().hex[:12]}", create=True, size=4096)
    yield memory
    memory.close()
    memory.unlink()


def ask(client: Client, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    got = client.request(method, path, b"" if body is None else json.dumps(body).encode())
    return got.status, json.loads(got.body)


# ── what it says of itself ────────────────────────────────────────────────────────────────────


def test_the_metadata_names_exactly_what_is_on(client: Client, strict: Client) -> None:
    found = ask(client, "GET", "/v2")[1]["extensions"]
    assert {"model_repository", "system_shared_memory"} < set(found)
    assert set(found) - set(ask(strict, "GET", "/v2")[1]["extensions"]) == {"model_repository", "system_shared_memory"}


def test_statistics_of_one_version_one_model_and_all(client: Client) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 64], "data": [0.5] * 128}
    before = ask(client, "GET", "/v2/models/digits/stats")[1]["model_stats"][0]["inference_count"]
    assert ask(client, "POST", "/v2/models/digits/infer", {"inputs": [tensor]})[0] == 200
    for path in ("/v2/models/stats", "/v2/models/digits/stats", "/v2/models/digits/versions/1/stats"):
        status, found = ask(client, "GET", path)
        assert status == 200
        (stats,) = [s for s in found["model_stats"] if s["name"] == "digits"]
        assert (stats["version"], stats["inference_count"]) == ("1", before + 2)
        assert stats["inference_stats"]["success"]["count"] >= 1
    assert ask(client, "GET", "/v2/models/other/stats")[0] == 404
    assert ask(client, "POST", "/v2/models/digits/stats")[0] == 405


def test_the_configuration_is_tritons(client: Client) -> None:
    for path in ("/v2/models/digits/config", "/v2/models/digits/versions/1/config"):
        status, found = ask(client, "GET", path)
        assert status == 200
        assert (found["name"], found["platform"]) == ("digits", "onnxruntime_onnx")
        assert found["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 64]}]
    assert ask(client, "GET", "/v2/models/digits/versions/9/config")[0] == 404


# ── the model repository ──────────────────────────────────────────────────────────────────────


def test_a_model_is_loaded_and_unloaded(client: Client) -> None:
    def states(ready: bool = False) -> dict[str, str]:
        status, found = ask(client, "POST", "/v2/repository/index", {"ready": ready} if ready else None)
        assert status == 200
        return {entry["name"]: entry["state"] for entry in found}

    assert states() == {"digits": "READY", "extra": "UNAVAILABLE"}
    assert states(ready=True) == {"digits": "READY"}
    assert ask(client, "GET", "/v2/models/extra/ready")[0] == 404
    assert ask(client, "POST", "/v2/repository/models/extra/load", {"parameters": {}}) == (200, {})
    assert states() == {"digits": "READY", "extra": "READY"}
    assert ask(client, "GET", "/v2/models/extra")[1]["versions"] == ["3"]
    assert (
        ask(client, "POST", "/v2/repository/models/extra/unload", {"parameters": {"unload_dependents": False}})[0]
        == 200
    )
    assert ask(client, "GET", "/v2/models/extra/ready")[0] == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("index", {"ready": "yes"}, 400, "ready has to be"),
        ("index", [], 400, "has to be a JSON object"),
        ("models/absent/load", None, 404, "no package of the name absent"),
        ("models/absent/unload", None, 404, "no model absent was loaded"),
        ("models/digits/load", None, 403, "channel's model"),
        ("models/digits/unload", None, 403, "channel's model"),
        ("models/extra/load", {"parameters": {"config": "{}"}}, 400, "as it was packaged"),
        ("models/extra/load", {"parameters": {"file:1/model.onnx": "AAAA"}}, 400, "as it was packaged"),
        ("models/..%2F..%2Fetc/load", None, 404, "no package of the name"),
        ("models//load", None, 404, "no package of the name"),
        ("load", None, 400, "has to name the model"),
        ("models/extra/reload", None, 404, "there is nothing at"),
        ("models", None, 404, "there is nothing at"),
    ],
)
def test_what_the_repository_refuses(client: Client, path: str, body: Any, status: int, said: str) -> None:
    got = ask(client, "POST", f"/v2/repository/{path}", body)
    assert (got[0], said in got[1]["error"]) == (status, True), got


@pytest.mark.parametrize("path", ["index", "models/digits/load", "models/digits/unload"])
def test_the_repository_is_closed_unless_it_is_allowed(strict: Client, client: Client, path: str) -> None:
    status, found = ask(strict, "POST", f"/v2/repository/{path}")
    assert status == 403
    assert "repository_api" in found["error"]
    assert ask(client, "GET", f"/v2/repository/{path}")[0] == 405


# ── shared memory ─────────────────────────────────────────────────────────────────────────────


def test_a_region_comes_and_goes(client: Client, memory: shared_memory.SharedMemory) -> None:
    region = {"key": f"/{memory.name}", "offset": 8, "byte_size": 100}
    assert ask(client, "POST", f"{REGION}/my%20frame/register", region) == (200, {})
    expected = [{"name": "my frame", **region}]
    assert ask(client, "GET", f"{REGION}/my%20frame/status") == (200, expected)
    assert ask(client, "GET", "/v2/systemsharedmemory/status") == (200, expected)
    assert ask(client, "POST", f"{REGION}/my%20frame/register", region)[0] == 400
    assert ask(client, "POST", f"{REGION}/my%20frame/unregister") == (200, {})
    assert ask(client, "GET", f"{REGION}/my%20frame/status")[0] == 404
    assert ask(client, "POST", f"{REGION}/a/register", {"key": memory.name, "byte_size": 1})[0] == 200
    assert ask(client, "POST", "/v2/systemsharedmemory/unregister") == (200, {})
    assert ask(client, "GET", "/v2/systemsharedmemory/status") == (200, [])


@pytest.mark.parametrize(
    "region",
    [
        None,
        [],
        {},
        {"key": "/edgeloop-x"},
        {"key": 7, "byte_size": 8},
        {"key": "/edgeloop-x", "byte_size": "8"},
        {"key": "/edgeloop-x", "byte_size": 8.0},
        {"key": "/edgeloop-x", "byte_size": True},
        {"key": "/edgeloop-x", "byte_size": -8},
        {"key": "/edgeloop-x", "byte_size": 8, "offset": None},
        {"key": "/edgeloop-x", "byte_size": 8, "offset": 10**30},
        {"key": "/edgeloop-absent", "byte_size": 8},
        {"key": "/edgeloop-\ud800", "byte_size": 8},
    ],
)
def test_regions_that_are_none(client: Client, region: Any) -> None:
    status, found = ask(client, "POST", f"{REGION}/frame/register", region)
    assert status == 400
    assert found["error"]
    assert ask(client, "GET", "/v2/systemsharedmemory/status") == (200, [])


def test_other_memory_is_none_of_the_clients(client: Client, strict: Client) -> None:
    status, found = ask(client, "POST", f"{REGION}/frame/register", {"key": "/other", "byte_size": 8})
    assert (status, "shared_memory allows what begins with /edgeloop-" in found["error"]) == (403, True)
    for method, path in (("GET", "status"), ("POST", "unregister"), ("POST", "region/a/register")):
        status, found = ask(strict, method, f"/v2/systemsharedmemory/{path}")
        assert (status, "the setting shared_memory allows it" in found["error"]) == (403, True)


def test_cuda_memory_is_refused_by_name(client: Client) -> None:
    region = {"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 8}
    status, found = ask(client, "POST", "/v2/cudasharedmemory/region/frame/register", region)
    assert (status, "CUDA shared memory is not supported" in found["error"]) == (400, True)
    assert ask(client, "GET", "/v2/cudasharedmemory/status") == (200, [])
    assert ask(client, "POST", "/v2/cudasharedmemory/unregister") == (200, {})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{REGION}/frame/register", 405),
        ("POST", f"{REGION}/frame/status", 405),
        ("POST", f"{REGION}/frame", 404),
        ("POST", f"{REGION}/frame/more/register", 404),
        ("POST", "/v2/systemsharedmemory/register", 400),
        ("POST", "/v2/systemsharedmemory/index", 404),
        ("GET", "/v2/systemsharedmemory", 404),
        ("GET", "/v2/logging", 404),
        ("POST", "/v2/logging", 404),
        ("GET", "/v2/trace/setting", 404),
        ("POST", "/v2/models/digits/trace/setting", 404),
        ("GET", "/v2/nothing", 404),
    ],
)
def test_what_is_not_there(client: Client, method: str, path: str, status: int) -> None:
    got, found = ask(client, method, path)
    assert got == status
    assert found["error"]
