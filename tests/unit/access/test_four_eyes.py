"""Four eyes: a rollout of a channel that asks for approvals begins when others have agreed, and not before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cloud_hub.access.principals import Role
from edgeloop.package import Package
from edgeloop.trust.names import ROOT, TARGETS
from tests.doubles.packages import make_package
from tests.doubles.people import People
from tests.unit.hub.api_kit import ApiHub


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path / "data", insecure=False, request_rate=0)
    yield hub
    hub.close()


@pytest.fixture
def newer(api: ApiHub, package: Package, tmp_path: Path) -> Package:
    """The next version of the package; the publisher has signed both."""
    newer = make_package(tmp_path / "newer", version="2")
    people = People(api.get("trust"), api.clock.now, package.name)
    for role in (ROOT, TARGETS):
        api.put(f"trust/metadata/{role}", people.file(role))
    for each in (package, newer):
        role, content = people.release(each)
        api.put(f"trust/metadata/{role}", content)
    return newer


def client(api: ApiHub, role: Role, name: str) -> httpx.Client:
    http = api.client(api.token(role, name))
    http.base_url = http.base_url.join("/api/v1/")
    return http


def channel(api: ApiHub, approvals: int) -> None:
    api.put("channels/stable", {"policy": {"rollout": {"approvals": approvals}}})


def test_a_rollout_waits_for_others(api: ApiHub, package: Package, newer: Package) -> None:
    publisher, ada, bob = (
        client(api, role, name) for role, name in ((Role.PUBLISHER, "ci"), (Role.APPROVER, "ada"), (Role.ADMIN, "bob"))
    )
    api.post("channels/stable/releases", {"digest": api.publish(package)})
    channel(api, 2)
    api.send_files(newer)
    digest = publisher.post("releases", content=newer.index.to_bytes()).json()["digest"]
    rollout = publisher.post("channels/stable/releases", json={"digest": digest}).json()["rollout"]
    api.hub.rollouts.tick()
    shown = api.get(f"rollouts/{rollout}")
    assert (shown["step"], shown["fraction"], shown["approvals_wanted"]) == (-1, 0.0, 2)
    assert shown["reason"] == "it waits for 2 of 2 approvals" and shown["started_by"] == "token:ci"

    assert publisher.post(f"rollouts/{rollout}/approve").status_code == 403, "not a publisher's to do"
    own = client(api, Role.APPROVER, "ci").post(f"rollouts/{rollout}/approve")
    assert own.status_code == 403 and "started this rollout" in own.json()["error"], "the same name with another role"
    assert ada.post(f"rollouts/{rollout}/approve", json={"reason": "on the bench"}).status_code == 200
    assert ada.post(f"rollouts/{rollout}/approve").status_code == 409, "two eyes are not four"
    api.clock.now += 100_000.0
    api.hub.rollouts.tick()
    assert api.get(f"rollouts/{rollout}")["step"] == -1, "time does not approve"
    agreed = bob.post(f"rollouts/{rollout}/approve").json()
    assert [approval["who"] for approval in agreed["approvals"]] == ["token:ada", "token:bob"]
    api.hub.rollouts.tick()
    begun = api.get(f"rollouts/{rollout}")
    assert "approvals" not in begun["reason"], "it waits for devices now"
    assert bob.post(f"rollouts/{rollout}/approve").status_code == 409
    assert {"rollout.start", "rollout.approve"} <= {entry["what"] for entry in api.get("audit", about=rollout)}


def test_who_published_the_release_may_not_approve_it(api: ApiHub, package: Package, newer: Package) -> None:
    api.post("channels/stable/releases", {"digest": api.publish(package)})
    channel(api, 1)
    api.send_files(newer)
    publisher = client(api, Role.ADMIN, "eve")
    assert publisher.post("releases", content=newer.index.to_bytes()).status_code == 201
    rollout = api.post("rollouts", {"channel": "stable", "digest": newer.index.digest}, 201)["id"]
    refused = publisher.post(f"rollouts/{rollout}/approve")
    assert refused.status_code == 403 and "published this release" in refused.json()["error"]


def test_a_first_release_is_current_when_it_is_approved(api: ApiHub, package: Package, newer: Package) -> None:
    channel(api, 1)
    digest = api.publish(package)
    offered = api.post("channels/stable/releases", {"digest": digest})
    assert offered["rollout"] and api.post("channels/stable/releases", {"digest": digest}) == offered, "sent twice"
    api.hub.rollouts.tick()
    shown = api.get("channels/stable")
    assert shown["current"] is None and shown["rollout"] is None, "no device is told of it"
    ada = client(api, Role.APPROVER, "ada")
    assert ada.post(f"rollouts/{offered['rollout']}/approve").status_code == 200
    api.hub.rollouts.tick()
    assert api.get("channels/stable")["current"]["digest"] == digest
    assert api.get(f"rollouts/{offered['rollout']}")["state"] == "finished"


def test_a_first_release_can_be_refused(api: ApiHub, package: Package, newer: Package) -> None:
    channel(api, 1)
    rollout = api.post("channels/stable/releases", {"digest": api.publish(package)})["rollout"]
    ada = client(api, Role.APPROVER, "ada")
    assert ada.post(f"rollouts/{rollout}/abort", json={"reason": "not yet"}).json()["state"] == "aborted"
    api.hub.rollouts.tick()
    assert api.get("channels/stable")["current"] is None
