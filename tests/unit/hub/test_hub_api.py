"""The HTTP interface: what it answers, and that it answers in one form."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from edgeloop.package import Package
from edgeloop.protocol import Reported, Topics, UpdateReport
from tests.unit.hub.api_kit import ApiHub
from tests.unit.hub.test_hub_releases import sha

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cloud-hub.md").read_text()


def blob(api: ApiHub, size: int = 10_000) -> tuple[str, bytes]:
    data = os.urandom(size)
    api.put(f"blobs/{sha(data)}", data, 201)
    return f"/api/v1/blobs/{sha(data)}", data


def test_a_blob_and_its_ranges(api: ApiHub) -> None:
    url, data = blob(api)
    whole = api.http.get(url)
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["accept-ranges"] == "bytes" and whole.headers["etag"] == f'"{sha(data)}"'
    for header, start, end in (("bytes=0-99", 0, 100), ("bytes=9000-", 9000, 10_000), ("bytes=-10", 9990, 10_000)):
        part = api.http.get(url, headers={"Range": header})
        assert (part.status_code, part.content) == (206, data[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/10000"
    assert api.http.get(url, headers={"Range": "bytes=10000-"}).status_code == 416
    other = {"Range": "bytes=5-", "If-Range": '"another"'}
    assert api.http.get(url, headers=other).content == data, "of another file there is no rest to fetch"
    head = api.http.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10000", b"")


def test_a_blob_that_is_there_is_not_written_again(api: ApiHub) -> None:
    url, data = blob(api)
    assert api.http.put(url, content=data).status_code == 200
    assert api.http.get(f"/api/v1/blobs/{'0' * 64}").status_code == 404
    api.get("blobs/nonsense", 422)


def test_a_device_is_flattened(api: ApiHub, package: Package) -> None:
    digest, topics = api.publish(package), Topics("default")
    update = UpdateReport(digest, "rolled_back", "golden outputs differ by 0.4", 1, "r1")
    message = Reported(
        "camera-1", "stable", None, update=update, provider="CPUExecutionProvider", clock=api.clock.now + 5,
        placement={"CPUExecutionProvider": 9}, ledger={"predictions": 4}, unclean_restarts=1,
    )  # fmt: skip
    api.hub.ingest.submit(topics.reported("camera-1"), message.to_bytes())
    api.hub.ingest.step(0.0)
    device = api.get("devices/camera-1")
    assert device["update"] == {
        "state": "rolled_back",
        "reason": "golden outputs differ by 0.4",
        "release": digest,
        "attempt": 1,
        "rollout": "r1",
    }
    assert (device["provider"], device["placement"]) == ("CPUExecutionProvider", {"CPUExecutionProvider": 9})
    assert (device["clock_skew_s"], device["unclean_restarts"]) == (5.0, 1)
    assert device["ledger"] == {"predictions": 4} and device["totals"]["predictions"] == 0
    assert api.get("devices") == [device] == api.get("devices", channel="stable")
    assert api.get("devices", channel="other") == []
    api.get("devices/nobody", 404)


def test_what_the_hub_wants_of_a_device(api: ApiHub) -> None:
    api.put("devices/camera-1/desired", {"channel": "stable", "policy": {"samples": 0}})
    assert api.get("devices/camera-1")["desired"]["channel"] == "stable"
    (topic, _, retain) = api.sent.messages[-1]
    assert (topic, retain) == (Topics("default").desired("camera-1"), True)
    refused = api.put("devices/camera-1/desired", {"policy": {"samples": 2**64}}, 422)
    assert "does not fit into 64 bits" in refused["error"], "no device can be told it"
    assert api.get("devices/camera-1")["desired"]["policy"] == {"samples": 0}
    api.put("devices/camera-1/desired", {"pin": "not a digest"}, 422)
    api.put("devices/camera 1/desired", {}, 422)


def test_insights_of_an_empty_hub(api: ApiHub) -> None:
    totals = api.get("insights/totals")
    assert (totals["predictions"], totals["classes"], totals["by_release"]) == (0, [], {})
    assert api.get("insights", channel="stable") == []
    assert api.get("accuracy", channel="stable") == []
    assert api.get("quarantine") == {"counts": {}, "newest": []}
    api.get("insights", 422)


def test_quarantine_is_shown(api: ApiHub) -> None:
    api.hub.ingest.submit(Topics("default").insights("evil"), b"\xff")
    api.hub.ingest.step(0.0)
    shown = api.get("quarantine", device="evil")
    assert shown["counts"] == {"malformed": 1}
    assert (shown["newest"][0]["device"], shown["newest"][0]["bytes"]) == ("evil", 1)


def test_readiness_names_what_is_missing(api: ApiHub) -> None:
    assert api.http.get("/healthz").json() == {"alive": True}
    answer = api.http.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert "not connected to the broker at 127.0.0.1:9" in checks["broker"] and checks["records"] == "ok"


def test_metrics_are_the_ones_of_the_page(api: ApiHub) -> None:
    text = api.http.get("/metrics").text
    served = {tuple(line.split()[2:4]) for line in text.splitlines() if line.startswith("# TYPE")}
    served = {(name.removesuffix("_total"), kind) for name, kind in served}
    listed = set(re.findall(r"^\| `(cloud_hub_\w+)` \| (\w+) \|", PAGE, re.M))
    assert served == listed


def test_everything_that_fails_has_one_form(api: ApiHub, monkeypatch: pytest.MonkeyPatch) -> None:
    api.get("nowhere", 404)
    api.post("devices", {}, 405)
    api.post("channels/stable/releases", {"digest": 7}, 422)
    api.post("channels/stable/releases", b"{", 422)

    def broken(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(api.hub.devices, "all", broken)
    answer = api.get("devices", 503)
    assert "SELECT" not in answer["error"], "a stranger is not shown the inside"
