"""Whoever may not have models measured on devices tries to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud_hub.access.principals import Role
from edgeloop.package import Package
from edgeloop.protocol import Reported
from tests.doubles.packages import make_package
from tests.unit.hub.api_kit import ApiHub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path_factory.mktemp("hub") / "data", insecure=False, request_rate=0)
    with hub.hub.db.begin() as connection:
        for device, channel in (("cam-1", "stable"), ("cam-2", "night")):
            hub.hub.devices.take_reported(connection, Reported(device=device, channel=channel, release=None), 1.0)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def package(hub: ApiHub, tmp_path_factory: pytest.TempPathFactory) -> Package:
    package = make_package(tmp_path_factory.mktemp("package") / "digits")
    for entry in package.index.entries:
        hub.hub.blobs.put_file(package.root / entry.path, entry.sha256)
    hub.hub.blobs.put(package.digest.removeprefix("sha256:"), [package.index.to_bytes()])
    return package


@pytest.mark.parametrize(
    ("role", "limits", "device", "status"),
    [
        (None, {}, "cam-1", 401),
        (Role.VIEWER, {}, "cam-1", 403),
        (Role.OPERATOR, {}, "cam-1", 403),
        (Role.APPROVER, {}, "cam-1", 403),
        (Role.PUBLISHER, {"models": {"faces"}}, "cam-1", 403),
        (Role.PUBLISHER, {"models": {"digits"}, "channels": {"stable"}}, "cam-2", 403),
        (Role.PUBLISHER, {"models": {"digits"}, "channels": {"stable"}}, "never-seen", 403),
        (Role.PUBLISHER, {"models": {"digits"}, "channels": {"stable"}}, "cam-1", 202),
    ],
)
def test_only_a_publisher_of_the_model_may_ask_a_device_of_theirs(
    hub: ApiHub, package: Package, role: Role | None, limits: dict[str, set[str]], device: str, status: int
) -> None:
    own = {name: frozenset(found) for name, found in limits.items()}
    token = "" if role is None else hub.token(role, f"{role}-{device}-{len(own)}", **own)
    with hub.client(token) as http:
        answer = http.post("/api/v1/trials", json={"device": device, "digest": package.digest})
        assert answer.status_code == status, answer.text


def test_somebody_elses_trial_is_neither_seen_nor_ended(hub: ApiHub, package: Package) -> None:
    trial = hub.post("trials", {"device": "cam-2", "digest": package.digest}, 202)["id"]
    for limits in ({"models": frozenset({"faces"})}, {"channels": frozenset({"stable"})}):
        with hub.client(hub.token(Role.PUBLISHER, f"stranger-{min(limits)}", **limits)) as http:
            assert http.get(f"/api/v1/trials/{trial}").status_code == 403
            assert http.post(f"/api/v1/trials/{trial}/cancel").status_code == 403
            assert trial not in {one["id"] for one in http.get("/api/v1/trials").json()}
    with hub.client(hub.token(Role.VIEWER, "looks on")) as http:
        assert http.get(f"/api/v1/trials/{trial}").status_code == 200
        assert http.post(f"/api/v1/trials/{trial}/cancel").status_code == 403
    assert hub.get(f"trials/{trial}")["ended"] is None
