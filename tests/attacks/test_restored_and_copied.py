"""Memories that went back, or were copied: of the hub's database, of a device's. Counted, or refused and said so."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from edgeloop.insights import Window
from tests.unit.hub.kit import Pipeline, envelope, epoch_of, window


@pytest.fixture
def hub(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path / "hub")


def at(hub: Pipeline, minute: int, classes: tuple[int, int, int] = (1, 2, 0)) -> Window:
    """The window that a device closed at a minute."""
    return window(classes, end=hub.clock.now - 6000.0 + 60.0 * minute)


def send(hub: Pipeline, device: str, number: int, content: Window, *, base: int = 1, epoch: int | None = None) -> None:
    hub.send(device, envelope(device, number, base=base, content=content, epoch=epoch))
    hub.work()


def test_the_hub_is_restored_from_yesterdays_copy_of_its_database(tmp_path: Path) -> None:
    """What came since is with nobody any more: it is counted as a gap, and nothing is counted twice or held up."""
    hub = Pipeline(tmp_path / "hub")
    for number in (1, 2, 3):
        send(hub, "a", number, at(hub, number))
    with sqlite3.connect(tmp_path / "hub" / "hub.db") as live, sqlite3.connect(tmp_path / "copy.db") as copy:
        live.backup(copy)
    for number in (4, 5):
        send(hub, "a", number, at(hub, number))
    assert hub.predictions == 15 and hub.sent.acks("a")[-1].last == 5
    hub.db.close()
    for leftover in ("hub.db", "hub.db-wal", "hub.db-shm"):
        (tmp_path / "hub" / leftover).unlink(missing_ok=True)
    shutil.copy(tmp_path / "copy.db", tmp_path / "hub" / "hub.db")

    hub = Pipeline(tmp_path / "hub")
    assert hub.predictions == 9
    send(hub, "a", 5, at(hub, 5), base=5)  # the acknowledgement of 5 had not reached the device
    send(hub, "a", 6, at(hub, 6), base=6)
    device = hub.devices.get("a")
    assert (hub.predictions, hub.sent.acks("a")[-1].last) == (15, 6)
    assert device.totals["gaps"] == 1, "number 4 was acknowledged, and so forgotten by the device"
    assert hub.quarantine.counts() == {}


def test_a_device_is_restored_from_yesterdays_copy_of_its_data(hub: Pipeline) -> None:
    """Its numbers are used again for other windows: refused, told to it, and it can go on."""
    for number in range(1, 6):
        send(hub, "a", number, at(hub, number))
    send(hub, "a", 3, at(hub, 30), base=3)
    ack = hub.sent.acks("a")[-1]
    assert ack.last == 3, "a device takes no acknowledgement of numbers that it has not sent"
    send(hub, "a", 4, at(hub, 31), base=4)
    assert hub.quarantine.counts() == {"reused": 2}
    assert "restored" in hub.quarantine.newest("a")[0].detail
    send(hub, "a", 6, at(hub, 33), base=6)
    assert hub.predictions == 18 and hub.sent.acks("a")[-1].last == 6


def test_the_same_identity_with_another_body(hub: Pipeline) -> None:
    send(hub, "a", 1, at(hub, 1))
    send(hub, "a", 1, at(hub, 1))
    assert hub.quarantine.counts() == {}, "sent again, as it was"
    send(hub, "a", 1, at(hub, 1, (7, 7, 7)))
    assert hub.quarantine.counts() == {"reused": 1}
    hub.send("a", envelope("a", 2, content=at(hub, 2)))
    hub.send("a", envelope("a", 2, content=at(hub, 2, (9, 9, 9))))  # within one batch
    hub.work()
    assert hub.quarantine.counts() == {"reused": 2}
    assert (hub.predictions, hub.sent.acks("a")[-1].last) == (6, 2)
    send(hub, "a", 3, at(hub, 3))
    assert hub.predictions == 9


def test_windows_that_are_sent_again_are_not_taken_for_others(hub: Pipeline) -> None:
    contents = [at(hub, number) for number in range(1, 9)]
    for _ in range(3):
        for number, content in enumerate(contents, start=1):
            hub.send("a", envelope("a", number, content=content))
        hub.work()
    assert hub.quarantine.counts() == {} and hub.predictions == 24


def test_an_epoch_that_another_device_used_first(hub: Pipeline) -> None:
    """A copied data folder: what both have would be counted twice."""
    send(hub, "first", 1, at(hub, 1), epoch=77)
    send(hub, "copy", 1, at(hub, 1), epoch=77)
    send(hub, "copy", 2, at(hub, 2), epoch=77)
    assert hub.quarantine.counts() == {"epoch-taken": 2}
    assert "first" in hub.quarantine.newest("copy")[0].detail
    assert (hub.sent.acks("copy")[-1].last, hub.sent.acks("copy")[-1].refused) == (2, (2,))
    send(hub, "copy", 1, at(hub, 3), epoch=78)
    send(hub, "first", 2, at(hub, 2), epoch=77)
    assert hub.predictions == 9, "the first goes on, and the copy with an epoch of its own"


def test_an_epoch_that_two_devices_use_in_one_batch(hub: Pipeline) -> None:
    hub.send("a", envelope("a", 1, epoch=5))
    hub.send("b", envelope("b", 1, epoch=5))
    hub.work()
    assert hub.quarantine.counts() == {"epoch-taken": 1} and hub.predictions == 3


@pytest.mark.parametrize("end", [12.0, 4e9, -5.0], ids=["1970", "2096", "before 1970"])
def test_clocks_of_1970_and_of_the_future_are_counted_for_the_present_and_noted(hub: Pipeline, end: float) -> None:
    send(hub, "a", 1, window(end=end))
    ((start, _),) = hub.insights.range("stable")
    assert start == hub.clock.now // 60 * 60
    assert hub.predictions == 3
    assert hub.devices.get("a").totals["misdated"] == hub.ingest.totals["misdated"] == 1
    send(hub, "b", 1, at(hub, 90))
    assert hub.devices.get("b").totals["misdated"] == 0


def test_numbers_that_go_backwards_within_an_envelope(hub: Pipeline) -> None:
    hub.send("a", envelope("a", 3, 1))
    hub.send("a", envelope("a", 1, base=2))
    hub.work()
    assert hub.quarantine.counts() == {"sequence": 2}
    send(hub, "a", 1, at(hub, 1))
    assert hub.predictions == 3


def test_epochs_of_a_fleet_differ() -> None:
    assert len({epoch_of(f"d{number}") for number in range(1000)}) == 1000
