"""Light windows and their weights: bounded, kept, and quick to compare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cloud_hub.carriers import bounded, look, named, weights
from cloud_hub.light_rows import MOST_IN_BIN, Layout
from cloud_hub.light_windows import FLUSH_S, IDLE_S, LATE_S, MOST_SEGMENTS, LightWindows
from cloud_hub.policy import DriftPolicy
from cloud_hub.seen import Seen
from edgeloop.insights import Profile, Window
from tests.doubles.new_records import new_records
from tests.integration.loop_world import Clock
from tests.unit.insights.worlds import profile

POLICY = DriftPolicy(min_predictions=100, interval_s=1.0, consecutive=2, false_alarms_per_year=None)
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ([], []),
        ([0, 0], [0, 0]),
        ([7], [1]),
        ([100, 10_000], [1, 0.02]),
        ([100, 120, 80, 10_000, 0], [1, 1, 1, 0.02, 0]),
        ([100, 200, 150], [1, 1, 1]),
    ],
)
def test_no_device_weighs_more_than_two_in_the_middle(predictions: list[int], expected: list[float]) -> None:
    assert weights(np.array(predictions)).tolist() == pytest.approx(expected, abs=0.005)


def window(rows: int, at: float, *, dark: bool = False, segment: str = "") -> Window:
    """Counts as the profile's, or with half of the first input's mass in its lowest bin."""
    made: Profile = profile()
    found = Window.zero(made.schema, "sha256:a", start=at - 1, end=at, segment=segment)
    found.arrays["counts"][0] = rows
    shares = made.reference.arrays["classes"] / made.reference.arrays["classes"].sum()
    found.arrays["classes"][:] = RANDOM.multinomial(rows, shares)
    for row in found.arrays["inputs"]:
        row[:] = RANDOM.multinomial(rows, [0.55, *[0.05] * 9] if dark else [0.1] * 10)
    return found


class Kept:
    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.db = new_records(folder)
        self.open()

    def open(self) -> None:
        layout = Layout(profile().schema, profile().reference)
        self.light = LightWindows(self.db, lambda release: layout, clock=self.clock)

    def second(self, names: dict[str, bool], rows: int = 100) -> None:
        for name, dark in names.items():
            self.light.observed(Seen.of(name, "stable", window(rows, self.clock(), dark=dark)))
        self.clock.now += 1
        look(self.group, profile(), profile().reference, POLICY)

    @property
    def group(self):  # type: ignore[no-untyped-def]
        found = self.light.group("stable", "sha256:a")
        assert found is not None
        return found


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.db.close()


def test_who_carries_a_drift_is_kept_over_a_restart(kept: Kept) -> None:
    devices = {f"d{i}": i == 1 for i in range(5)}
    for _ in range(3):
        kept.second(devices)
    assert named(kept.group, "device") == ["d1"]
    kept.light.flush()
    kept.open()
    assert named(kept.group, "device") == ["d1"]
    kept.second({"d0": False}, rows=50)
    kept.light.observed(Seen.of("d0", "night", window(10, kept.clock())))
    kept.light.tidy([("stable", "sha256:a")])
    kept.clock.now += FLUSH_S
    kept.light.tidy([("stable", "sha256:a")])
    with kept.db.read() as connection:
        rows = connection.exec_driver_sql("SELECT name, length(data) FROM light_windows").all()
    assert sorted(row[0] for row in rows) == ["d0", "d1", "d2", "d3", "d4"], "a row a device, whatever it sends"
    assert len({row[1] for row in rows}) == 1


def test_who_is_not_heard_of_is_forgotten(kept: Kept) -> None:
    kept.second({"d0": False, "d1": True})
    kept.clock.now += IDLE_S + 1
    kept.second({"d0": False})
    kept.light.tidy([("stable", "sha256:a")])
    assert kept.group["device"].names == ["d0"]


def test_windows_of_a_past_do_not_say_what_a_device_is_like(kept: Kept) -> None:
    skew = 9_000_000.0  # its clock is far behind, which says nothing
    kept.light.observed(Seen.of("d0", "stable", window(10, kept.clock() - skew)))
    kept.light.observed(Seen.of("d0", "stable", window(10, kept.clock() - skew - LATE_S - 1)))
    members = kept.group["device"]
    assert members.layout.predictions(members.now).tolist() == [10]


def test_names_and_counts_from_devices_take_no_more_room_than_they_may(kept: Kept) -> None:
    for i in range(MOST_SEGMENTS + 20):
        kept.light.observed(Seen.of("d0", "stable", window(10, kept.clock(), segment=f"s{i}")))
    assert len(kept.group["segment"]) == MOST_SEGMENTS
    shouting = window(10, kept.clock())
    shouting.arrays["classes"][:] = 1 << 42
    for _ in range(4):
        kept.light.observed(Seen.of("d1", "stable", shouting))
        members = kept.group["device"]
    assert members.now[members.place("d1")].max() == MOST_IN_BIN


def test_a_total_that_steers_is_bounded(kept: Kept) -> None:
    for name in ("d0", "d1", "d2"):
        kept.light.observed(Seen.of(name, "stable", window(100, kept.clock())))
    assert bounded(kept.group) is None, "the exact total says the same"
    kept.light.observed(Seen.of("d3", "stable", window(5_000, kept.clock())))
    group = kept.group
    rows = bounded(group)
    assert rows is not None
    assert group["device"].layout.predictions(rows) == pytest.approx(500, abs=10)
    rest = bounded(group, without=["d3"])
    assert rest is not None and group["device"].layout.predictions(rest) == 300


def test_ten_thousand_devices_are_compared_at_once(kept: Kept) -> None:
    """No loop over devices but for their states: a bound in calls, not in seconds, which are a benchmark's."""
    group = kept.group
    members, layout = group["device"], group["device"].layout
    one = layout.rows(Seen.of("d", "stable", window(120, kept.clock())).arrays, 1)
    names, since, until = [f"d{i}" for i in range(3_000)], kept.clock() - 5, kept.clock()
    members.add(names, np.repeat(one, 3_000, axis=0), [since] * 3_000, [until] * 3_000)
    assert look(group, profile(), profile().reference, POLICY)
    assert not named(group, "device") and not members.now.any() and members.last.any()
