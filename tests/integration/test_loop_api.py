"""The HTTP interface of the hub's decisions: rollouts, drift, retraining, labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from cloud_hub.api import alarms, drift, errors, labels, retraining, rollouts
from cloud_hub.labels import Labels
from edgeloop.package import Package
from edgeloop.protocol import Answers
from examples.digits.data import FIRST_SLIP
from tests.doubles.packages import make_package
from tests.integration.digits_package import digits_package  # noqa: F401
from tests.integration.loop_world import CHANNEL, POLICY, Camera, World


@pytest.fixture
def world(tmp_path: Path, package: Package) -> Iterator[World]:
    world = World(tmp_path)
    world.channels.set_policy(CHANNEL, POLICY)
    world.channels.offer(CHANNEL, world.publish(package), world.rollouts)
    world.add_device("camera-1")
    yield world
    world.close()


@pytest.fixture
def app(world: World) -> FastAPI:
    hub: Any = SimpleNamespace(
        rollouts=world.rollouts,
        drift=world.drift,
        alarms=world.alarms,
        training=world.training,
        labels=Labels(world.db, world.devices, world.topics, world.broker),
    )
    app = FastAPI()
    errors.install(app)
    for module in (rollouts, drift, alarms, retraining, labels):
        app.include_router(module.router(hub), prefix="/api/v1")
    return app


@pytest.fixture
def http(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://hub/api/v1/")


def test_rollouts(world: World, http: TestClient, tmp_path: Path) -> None:
    new = world.publish(make_package(tmp_path / "new", version="2"))
    started = http.post("rollouts", json={"channel": CHANNEL, "digest": new, "reason": "ticket 17"})
    assert started.status_code == 201
    rollout = started.json()
    assert (rollout["state"], rollout["cause"], rollout["steps"][0]) == (
        "running",
        "ticket 17",
        {"devices": 1, "share": None},
    )
    conflict = http.post("rollouts", json={"channel": CHANNEL, "digest": new})
    assert conflict.status_code == 409 and "/abort" in conflict.json()["hint"]
    world.tick()
    found = http.get(f"rollouts/{rollout['id']}").json()
    assert [entry["decision"] for entry in found["history"]] == ["start", "widen"]
    assert 0 < found["fraction"] < 1 and found["progress"]["selected"] == 0, "as it was when this was decided"
    assert world.devices_by_name["camera-1"].release == new
    aborted = http.post(f"rollouts/{rollout['id']}/abort", json={"reason": "no"}).json()
    assert (aborted["state"], aborted["reason"]) == ("aborted", "no")
    assert http.post(f"rollouts/{rollout['id']}/abort").status_code == 409
    assert [entry["id"] for entry in http.get("rollouts", params={"channel": CHANNEL}).json()] == [rollout["id"]]
    assert http.get("rollouts", params={"channel": "other"}).json() == []
    assert http.get("rollouts/r9").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 422, "channel"),
        ({"channel": CHANNEL, "digest": "sha256:" + "0" * 64}, 404, "no release"),
        ({"channel": CHANNEL, "digest": "x", "steps": []}, 422, "steps"),
        ({"channel": CHANNEL, "digest": "x", "steps": [{"share": 2}]}, 422, "share"),
        ({"channel": CHANNEL, "digest": "x", "steps": [{}]}, 422, "devices or share"),
        ({"channel": CHANNEL, "digest": "x", "more": 1}, 422, "more"),
    ],
)
def test_what_is_no_rollout(http: TestClient, body: dict[str, Any], status: int, told: str) -> None:
    answer = http.post("rollouts", json=body)
    assert answer.status_code == status and told in answer.json()["error"], answer.text


def test_drift_alarms_and_a_run(world: World, http: TestClient) -> None:
    assert http.get("drift").json() == [] and http.get("drift/alarms").json() == []
    camera = Camera(FIRST_SLIP, per_window=150)
    world.run(camera, 5)
    (report,) = http.get("drift").json()
    assert report["drifted"] and report["streak"] >= 2 and report["learning"] == []
    aspects = report["against"]["profile"]["aspects"]
    assert {"confidence", "classes", "inputs[0]", "projections[0]"} <= {aspect["name"] for aspect in aspects}
    (alarm,) = http.get("alarms", params={"state": "open", "channel": CHANNEL}).json()
    assert alarm["release"] == report["release"] and alarm["since"] < alarm["raised"]
    assert "of the mass moved" in alarm["summary"] and alarm["effect"] > 0.5
    assert alarm["scope"] == "fleet" and alarm["certainty"] > 0.999 and "everywhere at once" in alarm["suggestion"]
    assert all(0 <= aspect["p_value"] < 0.001 and aspect["direction"] for aspect in alarm["aspects"])
    assert http.get("alarms", params={"state": "closed"}).json() == []
    assert http.get(f"alarms/{alarm['id']}").json() == alarm
    assert http.get("alarms/99").status_code == 404 and http.post("alarms/99/acknowledge").status_code == 404
    assert http.get("alarms", params={"state": "odd"}).status_code == 422
    # As they were called before.
    assert http.get("drift/alarms").json() == [alarm] == [http.get(f"drift/alarms/{alarm['id']}").json()]
    seen = http.post(f"alarms/{alarm['id']}/acknowledge", json={"by": "ada: on my way"}).json()
    assert seen["acknowledged"] and seen["acknowledged_by"] == "ada: on my way" and seen["state"] == "open"
    assert http.post(f"alarms/{alarm['id']}/acknowledge").status_code == 409

    assert http.get("retraining").json() == []
    waits = http.get("retraining/trigger", params={"channel": CHANNEL}).json()
    assert waits == {"start": False, "reason": "0 of 400 labels have arrived", "cause": "drift"}
    assert http.get("retraining/trigger", params={"channel": "nowhere"}).status_code == 404
    refused = http.post("retraining", json={"channel": CHANNEL})
    assert refused.status_code == 422 and "no labels" in refused.json()["error"]
    assert http.post("retraining", json={"channel": "nowhere"}).status_code == 404
    world.run(camera, 2, labelled=True)
    queued = http.post("retraining", json={"channel": CHANNEL, "reason": "new cameras"})
    assert queued.status_code == 202 and queued.json()["verdict"] is None
    assert http.post("retraining", json={"channel": CHANNEL}).status_code == 409
    world.tick()
    (run,) = http.get("retraining", params={"channel": CHANNEL}).json()
    assert (run["state"], run["alarm"], run["cause"]) == ("released", alarm["id"], "new cameras")
    assert run["verdict"]["candidate_error"] < run["verdict"]["current_error"]
    assert run["verdict"]["summary"] == run["reason"] and run["candidate"]["data"]["labels"] == 300
    assert http.get(f"retraining/{run['id']}").json() == run
    assert http.get("retraining/99").status_code == 404
    lines = http.get(f"retraining/{run['id']}/log", params={"limit": 2}).json()["lines"]
    assert len(lines) == 2 and "released passed (held-out error" in lines[1]
    assert http.get("retraining/99/log").status_code == http.post("retraining/99/cancel").status_code == 404
    late = http.post(f"retraining/{run['id']}/cancel", json={"reason": "no"})
    assert late.status_code == 409 and "is released already" in late.json()["error"]


def test_labels_are_passed_on_in_bounded_messages(world: World, http: TestClient) -> None:
    items: list[dict[str, Any]] = [{"id": f"p-{i}", "label": i % 10} for i in range(1500)]
    items.append({"id": "p-x", "label": "seven"})
    answer = http.post("labels", json={"device": "camera-1", "items": items})
    assert (answer.status_code, answer.json()) == (202, {"sent": 1501})
    topic = world.topics.answers("camera-1")
    sent = [Answers.from_bytes(payload) for where, payload in world.broker.sent if where == topic]
    assert [len(message.items) for message in sent] == [1000, 501]
    assert sent[0].items[0] == ("p-0", 0) and sent[1].items[-1] == ("p-x", "seven")


def test_labels_that_cannot_be_passed_on(world: World, http: TestClient) -> None:
    item = {"id": "p", "label": 1}
    assert http.post("labels", json={"device": "nobody", "items": [item]}).status_code == 404
    assert http.post("labels", json={"device": "camera-1", "items": []}).status_code == 422
    assert http.post("labels", json={"device": "camera-1", "items": [{"id": "p", "label": -1}]}).status_code == 422
    assert http.post("labels", json={"device": "camera-1", "items": [{"id": "p", "label": 1.5}]}).status_code == 422
    world.broker.connected = False
    offline = http.post("labels", json={"device": "camera-1", "items": [item]})
    assert offline.status_code == 409 and "repeat" in offline.json()["hint"]
    world.broker.connected = True
    device = world.devices_by_name["camera-1"]
    device.online = False
    world.report(device)
    assert http.post("labels", json={"device": "camera-1", "items": [item]}).status_code == 409


def test_every_address_is_described_with_examples(app: FastAPI) -> None:
    document = app.openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description") or operation.get("summary"), (method, path)
    schemas = document["components"]["schemas"]
    for name in ("StartBody", "RequestBody", "LabelsBody", "VerdictAnswer"):
        assert schemas[name]["examples"], name
    assert any("examples" in field for field in schemas["AlarmAnswer"]["properties"].values())
