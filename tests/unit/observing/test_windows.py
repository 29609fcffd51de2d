"""Which release serves now, as its windows see it."""

from __future__ import annotations

from edge_agent.observing.windows import RETURNS_S, OpenWindows
from edgeloop.insights import WindowSchema
from tests.unit.observing.doubles import digest

SCHEMA = WindowSchema(classes=3, features=0, inputs=0, projections=0)
OLD, NEW = digest(1), digest(2)


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


def serving(windows: OpenWindows, *releases: str) -> str:
    """The release that serves when these have answered, one after the other."""
    for release in releases:
        windows.serving(release, "", SCHEMA, "v", "p").arrays["counts"][0] += 1
    busy = windows.busy()
    assert busy is not None
    return busy.release


def test_the_last_requests_of_a_release_that_was_left_do_not_bring_it_back() -> None:
    windows = OpenWindows(60.0, Clock())
    assert serving(windows, OLD) == OLD
    assert serving(windows, NEW, OLD, NEW, OLD) == NEW


def test_a_release_that_the_device_went_back_to_serves_again() -> None:
    clock = Clock()
    windows = OpenWindows(60.0, clock)
    for current in (OLD, NEW, OLD, NEW):
        assert serving(windows, current) == current
        windows.copies(clock.now)
        clock.now += RETURNS_S
    assert serving(windows, OLD) == OLD
    clock.now += 2.0
    assert [window.release for window in windows.take_due(clock.now, False)] == [NEW], "the one that was left is closed"
