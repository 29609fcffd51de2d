"""What a device says of its own accuracy: of its latest windows, release by release, and in words."""

from __future__ import annotations

from dataclasses import asdict

from edge_agent.observing.own import HALF_S, OwnAccuracy
from edge_agent.status import accuracy_line
from edgeloop.insights import Window
from tests.doubles.days import TurnedClock
from tests.doubles.digits import splits
from tests.unit.insights.test_accuracy import marks
from tests.unit.insights.worlds import digits_profile, digits_window


def window(part: slice, release: str = "sha256:a", segment: str = "") -> Window:
    found = digits_window(splits().test.x[part])
    found.release, found.segment = release, segment
    return found


def test_windows_of_an_hour_are_added_up_and_older_ones_forgotten() -> None:
    clock = TurnedClock()
    own = OwnAccuracy(clock)
    assert own.of("sha256:a", digits_profile()) is None
    own.closed([window(slice(0, 200), segment="x"), window(slice(200, 300))])
    rows = []
    for part in (slice(300, 400), slice(400, 500)):
        clock.advance(HALF_S)
        own.closed([window(part)])
        found = own.of("sha256:a", digits_profile())
        assert found is not None and found.estimate.expected is not None
        rows.append(found.estimate.expected.rows)
    assert rows == [400, 200]
    clock.advance(2 * HALF_S)
    assert own.of("sha256:a", digits_profile()) is None


def test_releases_are_kept_apart_and_few() -> None:
    own = OwnAccuracy(TurnedClock())
    for number in range(6):
        own.closed([window(slice(0, 100), f"sha256:{number}")])
    known = [number for number in range(6) if own.of(f"sha256:{number}", digits_profile()) is not None]
    assert known == [2, 3, 4, 5]


def test_people_read_the_figures_and_why_one_is_not_to_be_trusted() -> None:
    test = splits().test
    own = OwnAccuracy(TurnedClock())
    own.closed([digits_window(test.x, audit=marks(slice(0, 40)), label=marks(slice(50, 60)), y=test.y)])
    found = own.of("sha256:a", digits_profile())
    assert found is not None
    line = accuracy_line(asdict(found))
    assert "%) expected; " in line and "by 40 of 40 audits" in line and "of 10 chosen labels" in line
    blind = own.of("sha256:a", digits_profile().with_calibration(None))
    assert blind is not None
    assert "no estimate; not to be trusted: this release has no calibration" in accuracy_line(asdict(blind))
