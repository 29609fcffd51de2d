"""Accuracy in the hub: windows added up as finely as somebody asks, and what address and metrics say of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from cloud_hub.accuracy import FRESH_S, FleetAccuracy
from cloud_hub.api.accuracy import router
from cloud_hub.metrics import HubCollector
from tests.doubles.digits import splits
from tests.unit.hub.kit import Clock
from tests.unit.insights.test_accuracy import marks, truth
from tests.unit.insights.worlds import digits_profile, digits_window, slip

RELEASE = "sha256:a"


class Stored:
    """The windows of three hours: two fine ones, of two segments, one of a slipped camera with audits."""

    def __init__(self) -> None:
        test = splits().test
        self.reads = 0
        self.rows_: list[Any] = []
        for start, part, segment in ((7200.0, slice(0, 300), "a"), (7260.0, slice(300, 600), "b")):
            window = digits_window(test.x[part])
            window.segment = segment
            self.rows_.append(SimpleNamespace(start=start, window=window))
        slipped = digits_window(slip(test.x, 1), audit=marks(slice(0, 150)), y=test.y)
        self.rows_.append(SimpleNamespace(start=10_800.0, window=slipped))

    def rows(self, channel: str, release: Any, since: float | None, until: float | None) -> list[Any]:
        self.reads += 1
        return [row for row in self.rows_ if row.start >= (since or 0) and row.start < (until or 1e12)]


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def fleet(stored: Stored) -> FleetAccuracy:
    channels = SimpleNamespace(all=lambda: [SimpleNamespace(name="stable")])
    releases = SimpleNamespace(profile=lambda digest: digits_profile())
    return FleetAccuracy(channels, releases, stored, clock=Clock(11_000.0))  # type: ignore[arg-type]


def asked(fleet: FleetAccuracy, **query: Any) -> httpx.Response:
    app = FastAPI()
    app.include_router(router(SimpleNamespace(accuracy=fleet)))  # type: ignore[arg-type]

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub") as client:
            return await client.get("/accuracy", params={"channel": "stable", **query})

    return asyncio.run(get())


def test_the_address_says_what_the_windows_say(fleet: FleetAccuracy) -> None:
    first, second = asked(fleet).json()
    assert (first["start"], first["predictions"], first["segment"]) == (7200.0, 597, "")
    assert first["estimate"]["trusted"] and first["audits"]["drawn"] == 0 and first["labels"]["plain"] is None
    assert abs(first["estimate"]["accuracy"]["value"] - truth(splits().test.x, splits().test.y)) < 0.03
    assert second["start"] == 10_800.0 and not second["estimate"]["trusted"] and second["estimate"]["reason"]
    right = truth(slip(splits().test.x, 1), splits().test.y)
    assert second["audits"]["accuracy"]["low"] <= right <= second["audits"]["accuracy"]["high"]
    fine = asked(fleet, by_segment=True, until=10_000).json()
    assert [(one["segment"], one["predictions"]) for one in fine] == [("a", 300), ("b", 297)]
    assert asked(fleet, step_s=0).status_code == 422


def test_the_metrics_are_of_the_last_hour_and_not_read_at_every_scrape(fleet: FleetAccuracy, stored: Stored) -> None:
    collector = HubCollector(SimpleNamespace(accuracy=fleet))  # type: ignore[arg-type]
    for _ in range(3):
        shares, trusted = collector._accuracy()
        assert {sample.labels["by"] for sample in shares.samples} == {"estimate", "audits"}
        assert [sample.value for sample in trusted.samples] == [0.0]
    assert stored.reads == 1
    fleet._clock.now += FRESH_S  # type: ignore[attr-defined]
    list(collector._accuracy())
    assert stored.reads == 2
