"""Pictures and sentences sent by curl to a real agent; what comes before the models is in their packages' graphs."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.package import Package
from edgeloop.runtime import Model
from tests.doubles import digits, processed
from tests.doubles.installed import install
from tests.integration.agent_process import AgentProcess
from tests.integration.hub_process import wait_for

pytest.importorskip("PIL", reason="pip install 'edgeloop[pictures]'")
pytest.importorskip("sklearn", reason="pip install 'edgeloop[export]'")
extensions = pytest.importorskip("edgeloop.runtime.extensions")
if extensions.library() is None:
    pytest.skip("pip install 'edgeloop[processing]'", allow_module_level=True)
if shutil.which("curl") is None:
    pytest.skip("curl is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Package]:
    """The digits' and the sentences'."""
    folder = tmp_path_factory.mktemp("packages")
    pictures = processed.build_pictures(folder / "pictures", precision=["fp32"])
    return Package.open(pictures), Package.open(processed.build_sentences(folder / "sentences", precision=["fp32"]))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, packages: tuple[Package, Package]) -> Iterator[AgentProcess]:
    """It serves the digits as its channel's model, and the sentences from its own folder."""
    pictures, sentences = packages
    folder: Path = tmp_path_factory.mktemp("agent")
    shutil.copytree(sentences.root, folder / "models" / "sentences")
    agent = AgentProcess(
        folder, model_repository=folder / "models", max_picture_pixels=1_000_000, max_text_bytes=2000, policy="balanced"
    )
    install(pictures, agent.data)
    yield agent.start(ready=True)
    agent.close()


def curl(agent: AgentProcess, model: str, body: bytes, *options: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a request with this body."""
    command = ["curl", "-s", "-w", "\n%{http_code}", "--max-time", "30", "--data-binary", "@-", *options]
    done = subprocess.run(
        [*command, f"{agent.url}/v2/models/{model}/infer"], input=body, capture_output=True, check=True
    )
    answer, _, status = done.stdout.rpartition(b"\n")
    return int(status), json.loads(answer)


def typed(kind: str) -> tuple[str, str]:
    return "-H", f"Content-Type: {kind}"


@pytest.mark.parametrize(
    ("form", "kind"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("JPEG", "application/octet-stream")]
)
@pytest.mark.parametrize("side", [processed.SIDE, 200])
def test_a_picture_gets_the_name_of_its_class(agent: AgentProcess, form: str, kind: str, side: int) -> None:
    rows = digits.splits().validation
    right = 0
    for row, label in zip(rows.x[:8], rows.y[:8], strict=True):
        status, answer = curl(agent, "digits", processed.picture(row, form, side), *typed(kind))
        assert status == 200, answer
        assert 0.0 < answer["parameters"]["probability"] <= 1.0
        outputs = {output["name"]: output for output in answer["outputs"]}
        assert answer["parameters"]["label"] == str(outputs["label"]["data"][0])
        assert answer["parameters"]["probability"] == pytest.approx(max(outputs["probabilities"]["data"]), abs=1e-6)
        right += answer["parameters"]["label"] == str(label)
    assert right >= 5


def test_a_sentence_gets_the_name_of_its_class(agent: AgentProcess) -> None:
    for number in range(6):
        text = processed.sentence(number % 2, 1000 + number)
        status, answer = curl(agent, "sentences", text.encode(), *typed("text/plain; charset=utf-8"))
        assert status == 200, answer
        assert answer["parameters"]["label"] == processed.KINDS[number % 2]
        assert answer["parameters"]["probability"] > 0.5


def test_the_same_in_json_and_as_a_batch(agent: AgentProcess) -> None:
    texts = [processed.sentence(number % 2, 2000 + number) for number in range(5)] + ["rain"]
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}
    status, together = curl(agent, "sentences", json.dumps(body).encode())
    assert status == 200, together
    assert "parameters" not in together
    rows = np.array(together["outputs"][0]["data"]).reshape(len(texts), 2)
    for text, row in zip(texts, rows, strict=True):
        status, alone = curl(agent, "sentences", text.encode(), *typed("text/plain"))
        assert status == 200
        np.testing.assert_allclose(alone["outputs"][0]["data"], row, atol=1e-5)


def test_pixels_of_any_size_are_treated_as_their_picture_is(agent: AgentProcess) -> None:
    row = digits.splits().validation.x[3]
    pixels = np.repeat(np.repeat((row.reshape(8, 8) * 255).astype(np.uint8), 5, 0), 5, 1)
    pixels = np.repeat(pixels[np.newaxis, :, :, np.newaxis], 3, 3)
    body = {
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}]
    }
    status, answer = curl(agent, "digits", json.dumps(body).encode())
    assert status == 200, answer
    picture = curl(agent, "digits", processed.picture(row, "PNG", 40), *typed("image/png"))[1]
    np.testing.assert_allclose(answer["outputs"][1]["data"], picture["outputs"][1]["data"], atol=0.02)


def test_a_picture_and_a_text_that_are_not_for_this_model(agent: AgentProcess) -> None:
    status, answer = curl(agent, "sentences", b"\xff\xd8\xff", *typed("image/jpeg"))
    assert (status, "takes no picture" in answer["error"]) == (400, True)
    # A browser calls its JSON a plain text; a model that takes no text reads it as ever.
    status, answer = curl(agent, "digits", b"a text", *typed("text/plain"))
    assert (status, "not JSON" in answer["error"]) == (400, True)


def _png(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header says any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


GOOD = processed.picture(digits.splits().validation.x[0]) if shutil.which("curl") else b""
HOSTILE = {
    "no picture": b"hello, this is no picture",
    "nothing": b"",
    "cut off": GOOD[: len(GOOD) // 2],
    "cut off in the header": GOOD[:60],
    "a PNG cut off": processed.picture(digits.splits().validation.x[0], "PNG")[:70],
    "a bomb": _png(60_000, 60_000, b"\0" * 100_000),
    "larger than the largest": _png((1 << 31) - 1, (1 << 31) - 1, b""),
    "no width": _png(0, 10, b""),
    "zeros": GOOD[:200] + bytes(4000),
    "another format": b"GIF89a" + bytes(50),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_the_clients_fault(agent: AgentProcess, name: str) -> None:
    status, answer = curl(agent, "digits", HOSTILE[name], *typed("image/jpeg"))
    assert status == 400, answer
    assert "row 0" in answer["error"]
    assert agent.process is not None
    assert agent.process.poll() is None
    assert curl(agent, "digits", GOOD, *typed("image/jpeg"))[0] == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"." * 10_000_000, "max_text_bytes"), ("é".encode() * 1500, "max_text_bytes"), (b"\xff\xfe", "UTF-8")],
)
def test_a_hostile_text_is_the_clients_fault(agent: AgentProcess, body: bytes, said: str) -> None:
    status, answer = curl(agent, "sentences", body, *typed("text/plain"))
    assert (status, said in answer["error"]) == (400, True), answer
    for text in (b"", b"\0\0", "😀 \u202e".encode()):
        assert curl(agent, "sentences", text, *typed("text/plain"))[0] == 200


def test_what_it_has_seen_is_observed(agent: AgentProcess) -> None:
    assert curl(agent, "digits", GOOD, *typed("image/jpeg"))[0] == 200

    def observed() -> bool:
        agent.http.post("/edgeloop/v1/flush")
        status = agent.status()
        return status["ledger"]["predictions"] > 0 and status["outbox"]["windows"] > 0

    wait_for(observed, 20, f"a window\n{agent.status()}")
    assert "Traceback" not in agent.log


def test_the_same_from_python(packages: tuple[Package, Package]) -> None:
    pictures, sentences = packages
    with Model.open(sentences.root, threads=1) as model:
        found = model.predict(np.array([processed.sentence(0, 5), processed.sentence(1, 6)], object))
        assert found.names == list(processed.KINDS)
    with Model.open(pictures.root, threads=1) as model:
        golden = pictures.golden()
        label = model.predict(golden.inputs["image"]).label
        np.testing.assert_array_equal(label, golden.outputs["fp32"]["label"])
