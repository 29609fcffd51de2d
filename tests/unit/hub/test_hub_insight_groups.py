"""Insights that are added up, over HTTP: by release, segment and device; and as a Parquet file."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest

from edgeloop.insights import Observer, Window
from edgeloop.package import Package
from edgeloop.protocol import Insights, Reported, Topics
from tests.doubles.packages import answers, make_model
from tests.unit.hub.api_kit import ApiHub
from tests.unit.hub.kit import epoch_of

pq = pytest.importorskip("pyarrow.parquet", reason="pip install 'edgeloop[hub]'")


def fill(api: ApiHub, package: Package) -> str:
    """Two devices, one of them with a segment, with 30 predictions and 30 labels each; returns the release."""
    digest = api.publish(package)
    api.hub.channels.ensure("stable")
    profile = package.profile()
    assert profile is not None
    x = np.random.default_rng(1).random((30, 64)).astype(np.float32)
    found = answers(make_model(), x)
    for device, segment in (("a", ""), ("b", "line 2")):
        now = api.clock()
        window = Window.zero(profile.schema, digest, "cpu-fp32", "CPU", now - 60, now, segment)
        observer, predicted = Observer(profile), found["probabilities"].argmax(axis=1)
        observer.observe(window, x, found["probabilities"], found["features"], np.full(30, 2_000_000))
        labels = np.where(np.arange(30) < 6, (predicted + 1) % 10, predicted)
        observer.feedback(window, None, predicted, labels, np.zeros(30, bool))
        topics, ingest = Topics("default"), api.hub.ingest
        report = Reported(device, "stable", digest, clock=now)
        ingest.submit(topics.reported(device), report.to_bytes())
        message = Insights(device, epoch_of(device), 1, 1, 1, window.to_wire(), "stable")
        ingest.submit(topics.insights(device), message.to_bytes())
    while len(api.hub.ingest.inbox):
        assert api.hub.ingest.step(0.0)
    return digest


def test_groups_and_export(api: ApiHub, package: Package) -> None:
    digest = fill(api, package)
    (one,) = api.get("insights/groups", channel="stable", histograms=True)
    assert (one["release"], one["segment"], one["windows"], one["predictions"]) == (digest, None, 2, 60)
    assert one["accuracy"] == pytest.approx(0.8)
    assert one["latency"]["latency"]["predictions"] == 60
    assert one["latency"]["latency"]["p50"] == pytest.approx(2.0, rel=0.02)
    assert one["latency"]["latency_queue"]["p50"] is None
    by_name = {histogram["name"]: histogram for histogram in one["histograms"]}
    assert sum(by_name["confidence"]["counts"]) == 60
    assert all(len(item["edges"]) == len(item["counts"]) - 1 for item in by_name.values())

    parts = api.get("insights/groups", channel="stable", by="segment")
    assert [(part["segment"], part["predictions"], part["histograms"]) for part in parts] == [
        ("", 30, []),
        ("line 2", 30, []),
    ]
    (part,) = api.get("insights/groups", channel="stable", segment="line 2", by="segment")
    assert part["segment"] == "line 2"
    devices = api.get("insights/groups", channel="stable", by="device")
    assert [(device["device"], device["predictions"], device["latency"]) for device in devices] == [
        ("a", 30, {}),
        ("b", 30, {}),
    ]
    assert api.get("insights/groups", channel="stable", until=0) == []
    assert api.get("insights/totals")["correct"] == 48
    assert {row["segment"] for row in api.get("insights", channel="stable")} == {"", "line 2"}

    answer = api.http.get("/api/v1/insights/export", params={"channel": "stable"})
    table = pq.read_table(io.BytesIO(answer.content)).to_pylist()
    assert [(row["segment"], row["predictions"], row["correct"], row["windows"]) for row in table] == [
        ("", 30, 24, 1),
        ("line 2", 30, 24, 1),
    ]
    assert sum(dict(table[0]["counts"])["classes"]) == 30
    assert len(dict(table[0]["sums"])["feature_sum"]) == 16
    figures = api.http.get("/metrics").text
    where = f'channel="stable",release="{digest}"'
    assert f"cloud_hub_release_predictions_total{{{where}}} 60.0" in figures
    times = [line for line in figures.splitlines() if line.startswith("cloud_hub_latency_seconds{")]
    assert len(times) == 3, "three quantiles of the one time that was measured"
    assert all(digest in line and 0.0019 < float(line.split()[-1]) < 0.0021 for line in times)
    until = time.monotonic() + 20
    while list(api.hub.settings.data.glob("*.parquet")):
        assert time.monotonic() < until, "the file is deleted when it has been sent"
        time.sleep(0.02)
