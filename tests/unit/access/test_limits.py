"""A token that is limited to a channel or a model touches nothing else, by whatever name it asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cloud_hub.access.principals import Role
from edgeloop.protocol import Presence, Reported, Topics
from tests.doubles.packages import make_package
from tests.unit.hub.api_kit import ApiHub


class Two:
    """A hub with two channels, a device on each, and a release of each of two models."""

    def __init__(self, folder: Path) -> None:
        self.api = ApiHub(folder / "data", insecure=False, request_rate=0)
        packages = [make_package(folder / name, name=name) for name in ("digits", "letters")]
        self.digits, self.letters = [self.api.publish(package) for package in packages]
        topics = Topics("default")
        for name in ("mine", "other"):
            self.api.put(f"channels/{name}", {"policy": {}})
            presence, reported = Presence(f"on-{name}", True, 1, "test"), Reported(f"on-{name}", name, None, clock=0.0)
            self.api.hub.ingest.submit(topics.presence(f"on-{name}"), presence.to_bytes())
            self.api.hub.ingest.submit(topics.reported(f"on-{name}"), reported.to_bytes())
        while len(self.api.hub.ingest.inbox):
            self.api.hub.ingest.step(0.0)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    made = Two(tmp_path_factory.mktemp("two"))
    yield made
    made.api.close()


def client(two: Two, role: Role, **limits: list[str]) -> httpx.Client:
    http = two.api.client(two.api.token(role, **limits))
    http.base_url = http.base_url.join("/api/v1/")
    return http


def test_a_channel(two: Two) -> None:
    http = client(two, Role.OPERATOR, channels=["mine"])
    assert [channel["channel"] for channel in http.get("channels").json()] == ["mine"]
    assert http.get("channels/mine").status_code == 200 and http.get("channels/other").status_code == 403
    for path in ("devices", "rollouts", "alarms", "drift", "retraining", "insights/totals", "insights/export"):
        assert http.get(path).status_code == 403, f"{path} is about every channel"
        assert http.get(path, params={"channel": "mine"}).status_code == 200
        assert http.get(path, params={"channel": "other"}).status_code == 403
        twice = [("channel", "other"), ("channel", "mine")]
        assert http.get(path, params=twice).status_code == 403, "whichever of the two is taken"
    assert http.get("devices/on-mine").status_code == 200 and http.get("devices/on-other").status_code == 403
    for body in ({"channel": "other", "digest": two.digits}, {"digest": two.digits, "channel": "other", "reason": "x"}):
        assert http.post("rollouts", json=body).status_code == 403
    assert http.post("channels/other/releases", json={"digest": two.digits}).status_code == 403
    assert http.post("retraining", json={"channel": "other"}).status_code == 403
    items = [{"id": "1", "label": 1}]
    assert http.post("labels", json={"device": "on-other", "items": items}).status_code == 403
    assert http.post("labels", json={"device": "nobody", "items": items}).status_code == 403
    assert http.put("devices/on-other/desired", json={"channel": "mine"}).status_code == 403, "no device is taken away"
    assert http.put("devices/on-mine/desired", json={"channel": "other"}).status_code == 403, "nor given away"
    assert http.put("devices/on-mine/desired", json={"channel": "mine"}).status_code == 200
    for path in ("quarantine", "webhooks"):
        assert http.get(path).status_code == 403, f"{path} is about the whole fleet"


def test_a_number_is_one_that_the_guard_reads_as_the_handler_does(two: Two) -> None:
    http = client(two, Role.OPERATOR, channels=["mine"])
    assert http.get("alarms/7").status_code == 404
    for odd in ("+7", "7.0", "%207", "7_0", "٧", "9" * 30):
        assert http.get(f"alarms/{odd}").status_code in (403, 422), odd


def test_a_model(two: Two, tmp_path: Path) -> None:
    http = client(two, Role.PUBLISHER, models=["digits"])
    assert [release["name"] for release in http.get("releases").json()] == ["digits"]
    assert http.get(f"releases/{two.digits}").status_code == 200
    for path in ("", "/index", "/lineage"):
        assert http.get(f"releases/{two.letters}{path}").status_code == 403
    assert http.post("channels/mine/releases", json={"digest": two.letters}).status_code == 403
    assert http.put("trust/metadata/releases.letters", content=b"{}").status_code == 403
    assert http.put("trust/metadata/root", content=b"{}").status_code == 403
    assert http.put("trust/metadata/releases.digits", content=b"{}").status_code != 403


def test_a_release_of_another_model_is_refused_once_its_name_is_known(two: Two, tmp_path: Path) -> None:
    http = client(two, Role.PUBLISHER, models=["digits"])
    package = make_package(tmp_path / "more", name="letters", version="9")
    two.api.send_files(package)
    answer = http.post("releases", content=package.index.to_bytes())
    assert answer.status_code == 403 and "letters" in answer.json()["error"]
    assert package.index.digest not in [release["digest"] for release in two.api.get("releases")]
    two.api.post("releases", package.index.to_bytes(), 201)
    assert http.post("releases", content=package.index.to_bytes()).status_code == 403, "nor once it is there"
