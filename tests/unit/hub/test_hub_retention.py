"""Retention: minutes become hours become days, by merging; totals and sums stay, whenever the hub is killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from cloud_hub import retention as module
from cloud_hub.records.tables import device_totals, devices, insight_totals, marks, windows
from cloud_hub.retention import DAY_S, HOUR_S, Keep, Retention
from edgeloop.insights import Window
from tests.unit.hub.kit import CHANNEL, RELEASE, Pipeline, envelope, window

KEEP = Keep(intervals_s=2 * HOUR_S, hours_s=2 * DAY_S)


@pytest.fixture
def hub(tmp_path: Path) -> Pipeline:
    made = Pipeline(tmp_path)
    made.clock.now = 1_800_000_000.0 // DAY_S * DAY_S + 10 * DAY_S
    return made


def fill(hub: Pipeline, hours: int, *, first: int = 1, segment: str = "") -> int:
    """Two windows an hour, in minutes of their own, up to now; returns the next number."""
    number, now = first, hub.clock.now
    for half in range(2 * hours):
        content = window((half % 5, 1, 2), end=now - hours * HOUR_S + half * HOUR_S / 2 + 90.0)
        content.segment = segment
        hub.send("a", envelope("a", number, content=content))
        number += 1
    hub.work()
    return number


def lengths(hub: Pipeline) -> dict[float, int]:
    with hub.db.read() as connection:
        query = select(windows.c.resolution_s, func.count()).group_by(windows.c.resolution_s)
        return {row[0]: row[1] for row in connection.execute(query)}


def whole(hub: Pipeline) -> Window:
    found = hub.insights.merged(CHANNEL, RELEASE)
    assert found is not None
    return found


def all_due(hub: Pipeline, keep: Keep = KEEP) -> None:
    retention = Retention(hub.db, hub.insights, keep, clock=hub.clock)
    for _ in range(100):
        if not retention.tick():
            return
    raise AssertionError("it never ends")


def test_what_is_older_is_kept_in_longer_intervals_and_nothing_is_lost(hub: Pipeline) -> None:
    fill(hub, 96)
    fill(hub, 96, first=193, segment="line 2")
    before, totals = whole(hub), hub.insights.totals()
    all_due(hub)
    # Two hours by the minute, the rest of two days by the hour, two days by the day; for each of two segments.
    assert lengths(hub) == {60.0: 2 * 4, HOUR_S: 2 * 46, DAY_S: 2 * 2}
    after = whole(hub)
    assert (after.arrays["counts"] == before.arrays["counts"]).all()
    assert all((after.arrays[name] == array).all() for name, array in before.arrays.items() if array.dtype.kind == "i")
    assert hub.insights.totals() == totals
    assert sum(row.merged for row in hub.insights.rows(CHANNEL)) == 2 * 192
    day = hub.insights.rows(CHANNEL, segment="line 2")[0]
    assert (day.resolution_s, day.merged, day.start % DAY_S) == (DAY_S, 48, 0.0)


def test_a_window_that_comes_late_is_merged_into_the_long_interval(hub: Pipeline) -> None:
    number = fill(hub, 60)
    all_due(hub)
    before = lengths(hub)
    hub.send("a", envelope("a", number, content=window(end=hub.clock.now - 50 * HOUR_S)))
    hub.work()
    assert lengths(hub)[60.0] == before[60.0] + 1
    all_due(hub)
    assert lengths(hub) == before
    assert whole(hub).predictions == hub.predictions


def test_a_hub_that_is_killed_in_between_has_neither_lost_nor_doubled(
    hub: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(hub, 6)
    before = lengths(hub)
    with monkeypatch.context() as patch:
        patch.setattr(module, "add_row", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            Retention(hub.db, hub.insights, KEEP, clock=hub.clock).tick()
    assert lengths(hub) == before and whole(hub).predictions == hub.predictions
    all_due(hub)
    assert whole(hub).predictions == hub.predictions


def test_days_are_dropped_at_last_and_totals_are_not(hub: Pipeline) -> None:
    fill(hub, 96)
    totals = hub.insights.totals()
    all_due(hub, Keep(KEEP.intervals_s, KEEP.hours_s, 2 * DAY_S))
    assert lengths(hub)[DAY_S] == 1, "a day is dropped when all of it is older"
    assert hub.insights.totals() == totals


def sizes(folder: Path, fleet: int) -> dict[str, int]:
    """Rows of each table after each device of a fleet has sent two windows."""
    hub = Pipeline(folder, queue=8192)
    for number in (1, 2):
        for device in range(fleet):
            hub.send(f"d{device}", envelope(f"d{device}", number, content=window(end=hub.clock.now - 60.0 * number)))
    hub.work()
    with hub.db.read() as connection:
        count = {
            table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
            for table in (windows, insight_totals, device_totals, devices, marks)
        }
        count["bytes of windows"] = int(connection.execute(select(func.sum(func.length(windows.c.data)))).scalar_one())
    hub.db.close()
    return count


def test_a_thousand_devices_differ_from_ten_in_the_registry_only(tmp_path: Path) -> None:
    few, many = sizes(tmp_path / "few", 10), sizes(tmp_path / "many", 1000)
    assert few["windows"] == many["windows"] == 2
    assert few["insight_totals"] == many["insight_totals"] == 1
    for registry in ("device_totals", "devices", "marks"):
        assert (few[registry], many[registry]) == (10, 1000)
    assert many["bytes of windows"] < 1.5 * few["bytes of windows"], "counts are wider, and that is all"
