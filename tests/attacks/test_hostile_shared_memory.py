"""Memory that its owner cuts short, removes or describes wrongly: an error for whoever asks, and nothing beside it."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import uuid
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.doubles.door import Client, Got, NotingRecorder, ServingKit, connected
from tests.doubles.installed import install
from tests.doubles.packages import answers, make_model, make_package
from tests.integration.agent_process import AgentProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an object's size is set once")

SOAK = os.environ.get("EDGELOOP_SOAK") == "1"
INFER = "/v2/models/digits/infer"
REGION = "/v2/systemsharedmemory/region"
PAGE, ROW = 4096, 256
MODEL = make_model(0)


class Owner:
    """A client's own object, which it may do anything to."""

    def __init__(self, size: int) -> None:
        self.memory = shared_memory.SharedMemory(f"edgeloop-{uuid.uuid4().hex[:12]}", create=True, size=size)
        self.key, self.path = f"/{self.memory.name}", Path("/dev/shm") / self.memory.name
        self.size = size

    def resize(self, size: int) -> None:
        os.truncate(self.path, size)

    def fill(self, seed: int) -> None:
        rows = np.random.default_rng(seed).random(self.size // 4, dtype=np.float32)
        self.memory.buf[: rows.nbytes] = rows.tobytes()

    def close(self) -> None:
        self.memory.close()
        self.memory.unlink()


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner(16 * PAGE)
    owner.fill(1)
    yield owner
    owner.close()


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingKit]:
    folder: Path = tmp_path_factory.mktemp("packages")
    kit = ServingKit(make_package(folder / "digits"), NotingRecorder("probabilities"), memory=["/edgeloop-"])
    yield kit
    kit.close()


@pytest.fixture
def client(kit: ServingKit) -> Iterator[Client]:
    with connected(kit.port) as client:
        yield client
        assert client.request("POST", "/v2/systemsharedmemory/unregister").status == 200


def place(offset: int, size: int, region: str = "m") -> dict[str, Any]:
    return {"shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": size}


def register(client: Client, owner: Owner, offset: int, size: int, region: str = "m") -> Got:
    body = json.dumps({"key": owner.key, "offset": offset, "byte_size": size}).encode()
    return client.request("POST", f"{REGION}/{region}/register", body)


def ask(client: Client, rows: int, where: dict[str, Any], put: dict[str, Any] | None = None) -> Got:
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 64], "parameters": where}
    outputs = [{"name": "probabilities", "parameters": put or {}}]
    return client.request("POST", INFER, json.dumps({"inputs": [tensor], "outputs": outputs}).encode())


def reason(got: Got) -> str:
    assert 400 <= got.status < 500, got
    return str(json.loads(got.body)["error"])


def probabilities(got: Got) -> np.ndarray:
    assert got.status == 200, got
    (output,) = json.loads(got.body)["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def rows_at(owner: Owner, offset: int, rows: int) -> np.ndarray:
    return np.frombuffer(bytes(owner.memory.buf[offset : offset + rows * ROW]), np.float32).reshape(rows, 64)


# ── nothing beyond the tensor ─────────────────────────────────────────────────────────────────


def test_the_tensor_is_what_is_read_and_nothing_beside_it(client: Client, owner: Owner) -> None:
    """Around it lies NaN: one element of it would spoil the answer."""
    owner.memory.buf[:] = np.full(owner.size // 4, np.nan, np.float32).tobytes()
    for start, offset in ((0, 0), (PAGE - ROW, 0), (3, 4), (owner.size - 2 * ROW - 8, 8)):
        owner.memory.buf[start + offset : start + offset + 2 * ROW] = np.full(128, 0.5, np.float32).tobytes()
        assert register(client, owner, start, offset + 2 * ROW).status == 200
        expected = answers(MODEL, np.full((2, 64), 0.5, np.float32))["probabilities"]
        assert np.allclose(probabilities(ask(client, 2, place(offset, 2 * ROW))), expected, atol=1e-5)
        assert "holds NaN" in reason(ask(client, 2, place(offset - 4, 2 * ROW))) if offset else True
        assert f"has {offset + 2 * ROW} bytes" in reason(ask(client, 2, place(offset + 4, 2 * ROW)))
        assert client.request("POST", f"{REGION}/m/unregister").status == 200
        owner.memory.buf[start : start + offset + 2 * ROW] = b"\xff" * (offset + 2 * ROW)


def test_an_output_is_written_to_its_place_and_nowhere_else(client: Client, owner: Owner) -> None:
    register(client, owner, 0, owner.size)
    x = rows_at(owner, 0, 2)
    for offset, size in ((PAGE, 80), (PAGE + 3, 100), (owner.size - 80, 80)):
        before = bytes(owner.memory.buf)
        assert ask(client, 2, place(0, 2 * ROW), place(offset, size)).status == 200
        after = bytes(owner.memory.buf)
        found = np.frombuffer(after[offset : offset + 80], np.float32).reshape(2, 10)
        assert np.allclose(found, answers(MODEL, x)["probabilities"], atol=1e-5)
        assert after[:offset] == before[:offset] and after[offset + 80 :] == before[offset + 80 :]
    before = bytes(owner.memory.buf)
    for offset, size, said in (
        (PAGE, 79, "80 bytes; 79 are set aside"),
        (owner.size - 79, 80, f"has {owner.size} bytes"),
        (-1, 80, "numbers of bytes"),
        (1 << 62, 1 << 62, f"has {owner.size} bytes"),
    ):
        assert said in reason(ask(client, 2, place(0, 2 * ROW), place(offset, size)))
    assert bytes(owner.memory.buf) == before


@pytest.mark.parametrize(
    ("rows", "where", "said"),
    [
        (2, place(0, 2 * ROW - 1), "takes 512 bytes; there are 511"),
        (2, place(0, 2 * ROW + 1), "takes 512 bytes; there are 513"),
        (1 << 30, place(0, 2 * ROW), "there are 512"),
        (2, place(16 * PAGE - ROW, 2 * ROW), "has 65536 bytes"),
        (2, place(1 << 63, 2 * ROW), "has 65536 bytes"),
        (2, place(0, 1 << 70), "has 65536 bytes"),
        (2, place(-8, 2 * ROW), "numbers of bytes"),
        (2, place(0, 2 * ROW, "other"), "no shared memory region 'other'"),
        (0, place(0, 0), "batch is empty"),
    ],
)
def test_a_place_that_lies(client: Client, owner: Owner, rows: int, where: dict[str, Any], said: str) -> None:
    register(client, owner, 0, owner.size)
    assert said in reason(ask(client, rows, where))
    assert ask(client, 1, place(0, ROW)).status == 200


# ── memory that goes away ─────────────────────────────────────────────────────────────────────


def test_memory_that_is_cut_short_grown_and_removed(client: Client, owner: Owner) -> None:
    assert register(client, owner, 0, owner.size).status == 200
    owner.resize(PAGE)
    assert "has 4096 bytes" in reason(ask(client, 1, place(0, ROW)))
    assert "has 4096 bytes" in reason(register(client, owner, 0, owner.size, "again"))
    owner.resize(owner.size)
    assert ask(client, 1, place(0, ROW)).status == 200, "what was not read meanwhile is as it was"
    owner.path.unlink()
    assert ask(client, 1, place(0, ROW)).status == 200, "mapped memory lives on without its name"
    assert "cannot be opened" in reason(register(client, owner, 0, PAGE, "again"))
    owner.path.touch()  # for the fixture's end
    assert "has 0 bytes" in reason(register(client, owner, 0, PAGE, "again"))


def test_a_seeded_walk_of_everything_that_an_owner_can_do(kit: ServingKit, client: Client) -> None:
    """Every answer is right for the bytes that lie there, or an error: held to a model of what is registered."""
    chance = random.Random(20261126)
    files = psutil.Process().num_fds()
    owners = [Owner(8 * PAGE) for _ in range(3)]
    regions: dict[str, tuple[Owner, int, int]] = {}
    served = refused = 0
    try:
        for owner in owners:
            owner.fill(chance.randrange(99))
        for _ in range(30_000 if SOAK else 2000):
            owner, name = chance.choice(owners), chance.choice("abc")
            match chance.choice(("infer",) * 6 + ("register", "unregister", "resize", "fill")):
                case "register":
                    offset, size = chance.choice((0, 0, 1, PAGE)), chance.choice((0, ROW, 4 * PAGE, 6 * PAGE, 9 * PAGE))
                    if register(client, owner, offset, size, name).status == 200:
                        assert name not in regions and 0 < offset + size <= owner.path.stat().st_size
                        regions[name] = (owner, offset, size)
                case "unregister":
                    assert client.request("POST", f"{REGION}/{name}/unregister").status == 200
                    regions.pop(name, None)
                case "resize":
                    owner.resize(chance.choice((0, PAGE, *[8 * PAGE] * 4)))
                case "fill":
                    if owner.path.stat().st_size == owner.size:
                        owner.fill(chance.randrange(99))
                case "infer":
                    rows, offset = chance.randrange(1, 9), chance.choice((0, 0, 4, 7, ROW, PAGE - ROW, 4 * PAGE))
                    got = ask(client, rows, place(offset, rows * ROW, name))
                    fits = False
                    if name in regions:
                        whose, start, size = regions[name]
                        fits = offset + rows * ROW <= size and start + size <= whose.path.stat().st_size
                    if not fits:
                        assert reason(got)
                        refused += 1
                    elif got.status == 400:
                        assert "holds NaN" in reason(got), "odd offsets make odd numbers"
                    else:
                        with np.errstate(all="ignore"):
                            expected = answers(MODEL, rows_at(whose, start + offset, rows))["probabilities"]
                        if np.isfinite(expected).all():
                            assert np.allclose(probabilities(got), expected, atol=1e-4)
                            served += 1
        assert served > 10 and refused > 10
    finally:
        assert client.request("POST", "/v2/systemsharedmemory/unregister").status == 200
        for owner in owners:
            owner.resize(owner.size)
            owner.close()
    assert psutil.Process().num_fds() <= files


# ── against a running agent, in the middle of its runs ────────────────────────────────────────


def test_an_owner_who_cuts_its_memory_while_a_run_reads_it_ends_no_agent(tmp_path: Path) -> None:
    rows = 1 << 15  # 8 MB: a run takes milliseconds, and the owner is quicker
    agent = AgentProcess(tmp_path, shared_memory=["/edgeloop-"])
    install(make_package(tmp_path / "package"), agent.data)
    owner, done = Owner(rows * ROW), threading.Event()

    def cut() -> None:
        while not done.wait(0.002):
            owner.resize(0)
            owner.resize(rows * ROW)

    hostile = threading.Thread(target=cut)
    try:
        agent.start(ready=True)
        with connected(agent.port) as client:
            register(client, owner, 0, owner.size)
            assert ask(client, rows, place(0, owner.size), {"binary_data": True}).status == 200
            hostile.start()
            seen: dict[str, int] = {}
            for _ in range(2000 if SOAK else 300):
                got = ask(client, rows, place(0, owner.size), {"binary_data": True})
                said = "answered" if got.status == 200 else reason(got)
                key = next(k for k in ("taken away", "has 0 bytes", "no shared memory", "answered") if k in said)
                seen[key] = seen.get(key, 0) + 1
                if key != "answered":
                    client.request("POST", f"{REGION}/m/unregister")
                    register(client, owner, 0, owner.size)
                if seen.get("taken away", 0) >= (100 if SOAK else 5):
                    break
            assert seen.get("taken away", 0) >= 1, seen
            done.set()
            hostile.join()
            client.request("POST", "/v2/systemsharedmemory/unregister")
            register(client, owner, 0, owner.size)
            owner.fill(5)
            expected = answers(MODEL, rows_at(owner, 0, 3))["probabilities"]
            assert np.allclose(probabilities(ask(client, 3, place(0, 3 * ROW))), expected, atol=1e-5)
        assert agent.stop() == 0
    finally:
        done.set()
        agent.close()
        owner.close()


def test_regions_that_are_forgotten_while_runs_read_them(kit: ServingKit, owner: Owner) -> None:
    """Two clients: one asks, the other unregisters and registers without pause."""
    done = threading.Event()

    def forget() -> None:
        with connected(kit.port) as other:
            while not done.is_set():
                assert other.request("POST", f"{REGION}/m/unregister").status == 200
                assert register(other, owner, 0, owner.size).status == 200

    hostile = threading.Thread(target=forget)
    hostile.start()
    try:
        expected = answers(MODEL, rows_at(owner, 0, 256))["probabilities"]
        with connected(kit.port) as client:
            statuses = set()
            for _ in range(1000 if SOAK else 150):
                got = ask(client, 256, place(0, owner.size))
                statuses.add(got.status)
                if got.status == 200:
                    assert np.allclose(probabilities(got), expected, atol=1e-4)
                else:
                    assert "register it first" in reason(got)
            assert 200 in statuses
    finally:
        done.set()
        hostile.join()
        assert kit.memory is not None
        kit.memory.unregister(None)
