"""What leaves the agent by its sinks: signatures, Home Assistant's documents, results, rotated files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.flow_settings import SINKS, HomeAssistantSettings, WebhookSinkSettings, read_all
from edge_agent.flows import homeassistant
from edge_agent.flows.brokers import Device
from edge_agent.flows.lines import LinesFile
from edge_agent.flows.ports import Item, Trouble
from edge_agent.flows.results import result_of, summary
from edge_agent.flows.sinks.webhook import Webhook
from edge_agent.serving.calls import Answer, Described
from edgeloop.package import OutputSpec, TensorSpec
from tests.integration.hub_process import wait_for

DEVICE = Device("plant 1", "cam.7", "127.0.0.1", 1883, None, None)
ROLES = {"label": "label", "probabilities": "probabilities", "scores": "logits"}
LABELS = ("cat", "dog")


def test_a_signature_is_that_of_the_specifications_own_example() -> None:
    (settings,) = read_all(
        SINKS,
        [{"kind": "webhook", "name": "h", "url": "http://x", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}],
    )
    assert isinstance(settings, WebhookSinkSettings)
    headers = Webhook(settings).signed("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_home_assistant_gets_what_its_documentation_asks_for() -> None:
    settings = HomeAssistantSettings(title="Belt", unit="%", device_class="moisture", expire_after_s=60)
    topic = homeassistant.config_topic(settings, DEVICE, "home", "belt")
    assert topic == "homeassistant/sensor/edgeloop_plant-1_cam-7_home_belt/config"
    found = json.loads(homeassistant.config(settings, DEVICE, "home", "belt", "plant/belt"))
    assert found["unique_id"] == topic.split("/")[2], "the object id is best the unique id"
    assert found["state_topic"] == found["json_attributes_topic"] == "plant/belt"
    assert (found["name"], found["unit_of_measurement"], found["device_class"]) == ("Belt", "%", "moisture")
    assert found["expire_after"] == 60 and found["qos"] == 1 and "icon" not in found
    (available,) = found["availability"]
    assert available["topic"] == homeassistant.availability_topic(settings, DEVICE, "home")
    assert (available["payload_available"], available["payload_not_available"]) == ("online", "offline")
    assert found["device"]["identifiers"] == ["edgeloop_plant-1_cam-7"] and found["device"]["name"] == "cam.7"
    assert found["origin"]["name"] == "edgeloop" and found["origin"]["sw_version"]


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"label": np.array([1]), "probabilities": np.array([[0.25, 0.75]])}, {"state": "dog", "confidence": 0.75}),
        ({"probabilities": np.array([[0.75, 0.25]])}, {"state": "cat", "confidence": 0.75}),
        ({"scores": np.array([[-1.0, 3.0]])}, {"state": "dog"}),
        ({"label": np.array(["bird"], object)}, {"state": "bird"}),
        ({"label": np.array([7])}, {"state": 7}),
        ({"price": np.array([[3.5]], np.float32)}, {"state": 3.5}),
        ({"price": np.float32(2.5).reshape(())}, {"state": 2.5}),
        ({"price": np.array([[np.nan]])}, {"state": None}),
        ({"boxes": np.zeros((1, 0, 4)), "count": np.array([[0]])}, {"state": 0}),
        ({"boxes": np.zeros((0, 4))}, {"state": None}),
        ({}, {"state": None}),
    ],
)
def test_the_state_is_the_one_thing_to_show(outputs: dict[str, Any], expected: dict[str, Any]) -> None:
    assert summary(outputs, ROLES, LABELS) == expected


def test_a_result_is_an_inference_response_and_more() -> None:
    described = Described(
        "pets", "3", ("3",), (TensorSpec("x", "FP32", (-1, 2)),), (OutputSpec("label", "INT64", (-1,), "label"),)
    )
    answer = Answer('p"1', "pets", "3", (("label", np.array([1])), ("odd", np.array([[np.inf]]))))
    result = result_of(answer, described, LABELS, source="door", item=Item("a", {"file": "ü.png"}), at=5.00049)
    found = json.loads(result.document)
    assert b"Infinity" not in result.document and b"\n" not in result.document
    assert (found["id"], found["model_name"], found["model_version"]) == ('p"1', "pets", "3")
    assert found["outputs"][0] == {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]}
    assert (found["source"], found["item"], found["time"], found["state"]) == ("door", {"file": "ü.png"}, 5.0, "dog")


def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    file = LinesFile(path, 1000, 2)
    for number in range(400):
        file.append(b'{"number": %05d}' % number)
    file.close()
    sizes = {found.name: found.stat().st_size for found in tmp_path.iterdir()}
    assert set(sizes) == {"a.jsonl", "a.jsonl.1", "a.jsonl.2"} and max(sizes.values()) <= 1000
    text = b"".join((tmp_path / name).read_bytes() for name in ("a.jsonl.2", "a.jsonl.1", "a.jsonl"))
    numbers = [int(line[-6:-1]) for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 400)), "nothing is missing between the oldest and the newest"
    none_kept = LinesFile(tmp_path / "b.jsonl", 100, 0)
    for _ in range(50):
        none_kept.append(b"x" * 40)
    none_kept.close()
    assert (tmp_path / "b.jsonl").stat().st_size <= 100 and not (tmp_path / "b.jsonl.1").exists()


@pytest.mark.parametrize("keep", [0, 2])
def test_a_file_that_cannot_be_begun_is_begun_later_and_none_is_lost_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    path = tmp_path / "a.jsonl"
    file = LinesFile(path, 20, keep)
    for number in range(3):
        file.append(b"line number %d" % number)

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "open", full)
        for _ in range(4):
            with pytest.raises(Trouble, match="No space left"):
                file.append(b"line number 3")
    file.append(b"line number 3")
    file.sync()
    file.close()
    names = ("a.jsonl.2", "a.jsonl.1", "a.jsonl")[2 - keep :]
    assert [(tmp_path / name).read_bytes() for name in names] == [
        b"line number %d\n" % number for number in range(3 - keep, 4)
    ]


WRITER = """
import sys
from pathlib import Path
from edge_agent.flows.lines import LinesFile
file = LinesFile(Path(sys.argv[1]), 200_000, 3)
print(file.repaired_bytes, flush=True)
number = int(sys.argv[2])
while True:
    file.append(b'{"number": %d, "fill": "%s"}' % (number, b"x" * (number % 3000)))
    number += 1
"""


def size(path: Path) -> int:
    """Bytes of a file; 0 while its writer is about to begin the next one."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_killed_writer_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for round_ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(round_ * 1_000_000)],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            stdout=subprocess.PIPE,
        )
        try:
            before = size(path)
            wait_for(lambda before=before: size(path) not in (0, before), 30, "a line")  # type: ignore[misc]
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(30)
        assert child.stdout is not None
        child.stdout.close()
        LinesFile(path, 200_000, 3).close()
        for found in tmp_path.iterdir():
            for line in found.read_bytes().splitlines(keepends=True):
                assert line.endswith(b"\n") and json.loads(line)
