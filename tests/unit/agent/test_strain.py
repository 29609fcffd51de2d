"""Heat, battery and memory: levels with hysteresis, read from a made-up sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.neighbour import Neighbour
from edge_agent.strain import Level, Readings, Strain, StrainRules, holds_updates, judge
from edge_agent.sysfs import hottest_celsius, power

RULES = StrainRules(hot_celsius=80, low_battery_percent=20, max_memory_bytes=1000)
NORMAL, GENTLE, MINIMAL = Level.NORMAL, Level.GENTLE, Level.MINIMAL


def levels(readings: list[Readings], rules: StrainRules = RULES) -> list[Level]:
    strain, found = Strain(), []
    for reading in readings:
        strain = judge(rules, reading, strain)
        found.append(strain.level)
    return found


def test_heat_is_left_only_when_it_is_clearly_cooler() -> None:
    heat = [79, 80, 79, 75, 74.9, 89, 90, 86, 85, 84.9, 75, 74]
    expected = [NORMAL, GENTLE, GENTLE, GENTLE, NORMAL, GENTLE, MINIMAL, MINIMAL, MINIMAL, GENTLE, GENTLE, NORMAL]
    assert levels([Readings(celsius=value) for value in heat]) == expected


def test_a_battery_counts_only_while_it_is_emptied() -> None:
    charge = [(21, True), (19, True), (24, True), (25, True), (9, True), (14, True), (15, True), (9, False), (9, True)]
    expected = [NORMAL, GENTLE, GENTLE, NORMAL, MINIMAL, MINIMAL, GENTLE, NORMAL, MINIMAL]
    assert levels([Readings(battery_percent=p, emptying=e) for p, e in charge]) == expected


def test_memory_beyond_the_budget() -> None:
    sizes = [1000, 1001, 950, 900, 1000]
    assert levels([Readings(resident_bytes=s) for s in sizes]) == [NORMAL, GENTLE, GENTLE, NORMAL, NORMAL]


def test_what_is_switched_off_or_not_there_says_nothing() -> None:
    worst = Readings(celsius=140, battery_percent=1, emptying=True, resident_bytes=10**12)
    assert levels([worst], StrainRules()) == [NORMAL]
    assert levels([Readings()]) == [NORMAL]
    assert levels([worst]) == [MINIMAL]


def test_a_device_without_a_release_waits_only_when_it_must() -> None:
    gentle = judge(RULES, Readings(celsius=81), Strain())
    minimal = judge(RULES, Readings(celsius=91), Strain())
    assert "81 °C" in holds_updates(gentle, first=False) and holds_updates(gentle, first=True) == ""
    assert holds_updates(minimal, first=True) and holds_updates(Strain(), first=False) == ""


@pytest.fixture
def sys_class(tmp_path: Path) -> Path:
    """A device with three zones, one of which is broken and one asleep, a battery, a charger and a mouse."""
    files = {
        "thermal/thermal_zone0/temp": "45500\n",
        "thermal/thermal_zone1/temp": "2147483647\n",
        "thermal/thermal_zone2/mode": "disabled\n",
        "thermal/thermal_zone2/temp": "99000\n",
        "thermal/cooling_device0/type": "Processor\n",
        "power_supply/BAT0/type": "Battery\n",
        "power_supply/BAT0/capacity": "64\n",
        "power_supply/BAT0/status": "Discharging\n",
        "power_supply/AC/type": "Mains\n",
        "power_supply/hid-mouse/type": "Battery\n",
        "power_supply/hid-mouse/scope": "Device\n",
        "power_supply/hid-mouse/capacity": "3\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "thermal/thermal_zone3").mkdir()
    return tmp_path


def test_sysfs_is_read_and_nonsense_is_not(sys_class: Path, tmp_path: Path) -> None:
    assert hottest_celsius(sys_class) == 45.5
    assert power(sys_class) == (64.0, True)
    (sys_class / "power_supply/BAT0/capacity").write_text("full")
    assert power(sys_class) is None
    assert hottest_celsius(tmp_path / "none") is None and power(tmp_path / "none") is None


def test_whoever_watches_is_told_of_changes_only(sys_class: Path) -> None:
    memory = 10
    told: list[Level] = []
    neighbour = Neighbour(RULES, root=sys_class, resident=lambda: memory)
    neighbour.watch(lambda strain: told.append(strain.level))
    zone = sys_class / "thermal/thermal_zone0/temp"
    for heat in (45_000, 81_000, 82_000, 95_000, 40_000, 41_000):
        zone.write_text(str(heat))
        neighbour.look()
    assert told == [GENTLE, MINIMAL, NORMAL]
    assert neighbour.holds_updates(False) == ""
    memory = 2000
    neighbour.look()
    assert "max_memory_bytes" in neighbour.holds_updates(False)
    neighbour.use(StrainRules())
    assert neighbour.look().level == NORMAL
