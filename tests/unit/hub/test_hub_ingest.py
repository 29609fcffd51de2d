"""The pipeline: exactly once, bounded, nothing held up, acknowledged after the commit."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from cloud_hub.counting import Counting, Seen
from cloud_hub.inbox import Incoming
from cloud_hub.marks import Marks, MarksMoved
from cloud_hub.records.tables import marks
from edgeloop.protocol import Presence, Reported
from tests.unit.hub.kit import CHANNEL, RELEASE, TOPICS, Pipeline, Sender, envelope, epoch_of, window


@pytest.fixture
def hub(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


def reported(device: str, **fields: Any) -> bytes:
    return Reported(**{"device": device, "channel": CHANNEL, "release": None, **fields}).to_bytes()


def test_windows_are_counted_and_acknowledged(hub: Pipeline) -> None:
    for number in (1, 2, 3):
        hub.send("a", envelope("a", number))
    hub.work()
    assert hub.insights.totals(CHANNEL, RELEASE) == {
        "predictions": 9,
        "errors": 0,
        "feedback": 0,
        "escalations": 0,
        "nonfinite": 0,
        "windows": 3,
        "correct": 0,
        "classes": [3, 6, 0],
        "by_release": {
            RELEASE: {
                "predictions": 9,
                "errors": 0,
                "feedback": 0,
                "escalations": 0,
                "nonfinite": 0,
                "windows": 3,
                "correct": 0,
                "classes": [3, 6, 0],
            }
        },
    }
    (ack,) = hub.sent.acks("a")
    assert (ack.epoch, ack.last, ack.refused) == (epoch_of("a"), 3, ())
    device = hub.devices.get("a")
    assert (device.totals["predictions"], device.totals["windows"], device.totals["classes"]) == (9, 3, [3, 6, 0])
    assert device.last_seen == hub.clock.now


def test_duplicates_are_acknowledged_and_not_counted(hub: Pipeline) -> None:
    for _ in range(3):
        hub.send("a", envelope("a", 1))
        hub.send("a", envelope("a", 1))
        hub.work()
    assert hub.predictions == 3
    assert [ack.last for ack in hub.sent.acks("a")] == [1, 1, 1]
    assert hub.ingest.totals["duplicate"] == 5


def test_a_window_that_came_too_early_waits_for_the_ones_before_it(hub: Pipeline) -> None:
    hub.send("a", envelope("a", 2, base=1))
    hub.work()
    assert hub.predictions == 0
    assert hub.sent.acks("a")[-1].last == 0
    for number in (1, 2):
        hub.send("a", envelope("a", number, base=1))
    hub.work()
    assert hub.predictions == 6
    assert hub.sent.acks("a")[-1].last == 2


def test_a_gap_that_no_one_can_fill_is_passed_and_counted(hub: Pipeline) -> None:
    hub.send("a", envelope("a", 1))
    hub.send("a", envelope("a", 5, base=5))
    hub.work()
    assert hub.sent.acks("a")[-1].last == 5
    assert hub.devices.get("a").totals["gaps"] == 3


def test_observers_are_told_of_each_counted_window_after_the_commit(hub: Pipeline) -> None:
    told: list[tuple[str, str, int, int]] = []

    def broken(_seen: Seen) -> None:
        raise ZeroDivisionError("a defect")

    def observed(seen: Seen) -> None:
        for device, channel, counts in zip(seen.devices, seen.channels, seen.arrays["counts"], strict=True):
            told.append((device, channel, int(counts[0]), hub.predictions))

    hub.ingest.observes(broken)
    hub.ingest.observes(observed)
    hub.send("a", envelope("a", 1))
    hub.send("a", envelope("a", 1))
    hub.send("b", envelope("b", 1, channel="nowhere"))
    hub.work()
    assert told == [("a", CHANNEL, 3, 3)], "once, not for what is refused, and with the totals committed"
    assert hub.sent.acks("a")[-1].last == 1


def test_merged_windows_carry_a_range(hub: Pipeline) -> None:
    hub.send("a", envelope("a", 1, 40))
    hub.send("a", envelope("a", 41))
    hub.work()
    assert (hub.predictions, hub.sent.acks("a")[-1].last) == (6, 41)


def test_an_overlap_is_set_aside_and_holds_nothing_up(hub: Pipeline) -> None:
    hub.send("a", envelope("a", 1, 2))
    hub.send("a", envelope("a", 2, 3))
    hub.send("a", envelope("a", 4))
    hub.work()
    ack = hub.sent.acks("a")[-1]
    assert (hub.predictions, ack.last, ack.refused) == (6, 4, (2, 3))
    assert hub.quarantine.counts() == {"overlap": 1}


def test_a_new_epoch_begins_anew(hub: Pipeline) -> None:
    hub.send("a", envelope("a", 1))
    hub.send("a", envelope("a", 1, epoch=2))
    hub.work()
    assert hub.predictions == 6
    assert {(ack.epoch, ack.last) for ack in hub.sent.acks("a")} == {(epoch_of("a"), 1), (2, 1)}


@pytest.mark.parametrize(
    ("payload", "reason", "acknowledged"),
    [
        (b"", "malformed", False),
        (b"\xff" * 50, "malformed", False),
        (envelope("b", 1), "wrong-device", False),
        (envelope("a", 2, base=3), "sequence", False),
        (envelope("a", 3, 1), "sequence", False),
        (envelope("a", 1, content=window(release="sha256:" + "b" * 64)), "unknown-release", True),
        (envelope("a", 1, channel="nowhere"), "unknown-channel", True),
    ],
)
def test_what_cannot_be_counted_is_set_aside_with_its_reason(
    hub: Pipeline, payload: bytes, reason: str, acknowledged: bool
) -> None:
    hub.send("a", payload)
    hub.work()
    assert hub.quarantine.counts() == {reason: 1}
    (kept,) = hub.quarantine.newest("a")
    assert (kept.device, kept.kind, kept.reason, kept.payload) == ("a", "insights", reason, payload)
    assert hub.predictions == 0
    refused = [ack.refused for ack in hub.sent.acks("a") if ack.last]
    assert refused == ([(1,)] if acknowledged else [])
    hub.send("a", envelope("a", 2 if acknowledged else 1, base=2 if acknowledged else 1))
    hub.work()
    assert hub.predictions == 3, "the next window is counted"


def test_quarantine_is_bounded_for_each_device_and_its_counts_are_not(hub: Pipeline) -> None:
    for number in range(12):
        hub.send("a", bytes([255, number]))
    hub.send("b", b"\xff")
    hub.work()
    assert len(hub.quarantine.newest("a")) == 5
    assert hub.quarantine.newest("a")[0].payload == bytes([255, 11]), "the newest are kept"
    assert len(hub.quarantine.newest("b")) == 1
    assert hub.quarantine.counts() == {"malformed": 13}
    assert hub.devices.all() == [], "noise alone makes no device"


def test_topics_that_are_not_the_fleets_are_dropped(hub: Pipeline) -> None:
    released: list[int] = []
    for topic in ("", "other/topic", "edgeloop/v1/else/d/a/insights", TOPICS.ack("a"), TOPICS.channel("stable")):
        hub.ingest.submit(topic, b"x", lambda: released.append(1))
    assert (len(hub.ingest.inbox), hub.ingest.totals["foreign"], len(released)) == (0, 5, 5)


def test_without_room_a_message_is_dropped_at_once_and_the_broker_is_told(tmp_path: Path) -> None:
    hub, released = Pipeline(tmp_path, queue=32), []
    for number in range(1, 100):
        hub.ingest.submit(TOPICS.insights("a"), envelope("a", number), lambda: released.append(1))
    assert hub.ingest.totals["dropped"] == 99 - len(hub.ingest.inbox) == len(released)
    hub.work()
    assert len(released) == 99


def test_when_the_records_cannot_be_written_nothing_is_acknowledged(
    hub: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[int] = []

    def full(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(Marks, "write", full)
        hub.ingest.submit(TOPICS.insights("a"), envelope("a", 1), lambda: released.append(1))
        assert not hub.ingest.step(0.0)
    assert hub.sent.acks("a") == [] and hub.predictions == 0 and released == [1]
    hub.send("a", envelope("a", 1))
    hub.work()
    assert (hub.predictions, hub.sent.acks("a")[-1].last) == (3, 1)


def test_a_failure_in_the_middle_of_a_transaction_leaves_nothing_of_it(
    hub: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(hub.quarantine, "add", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        hub.send("a", envelope("a", 1))
        assert not hub.ingest.step(0.0)
    with hub.db.read() as connection:
        assert connection.execute(select(marks)).all() == []
    assert hub.predictions == 0


def test_a_defect_of_ours_sets_one_message_aside_and_counts_the_others(
    hub: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Counting.add

    def broken(self: Counting, release: str, schema: Any, arrived: Any) -> Any:
        if any(item.window["end"] == 666.0 for item in arrived):
            raise ZeroDivisionError("a defect")
        return real(self, release, schema, arrived)

    monkeypatch.setattr(Counting, "add", broken)
    hub.send("a", envelope("a", 1))
    hub.send("bad", envelope("bad", 1, content=window(end=666.0)))
    hub.send("bad", envelope("bad", 2, base=1))
    hub.send("z", envelope("z", 1))
    hub.work()
    assert hub.predictions == 9
    assert hub.quarantine.counts() == {"internal": 1}
    assert hub.sent.acks("bad")[-1].last == 2


def test_another_process_that_moved_the_mark_makes_the_batch_fail_and_not_count_twice(hub: Pipeline) -> None:
    hub.send("a", envelope("a", 1))
    hub.work()
    batch = hub.ingest._gatherer.gather([Incoming("insights", "a", envelope("a", 2), 0.0)], observing=False)
    with hub.db.begin() as connection:
        connection.execute(marks.update().values(last=2))
    with pytest.raises(MarksMoved), hub.db.begin() as connection:
        hub.ingest._write(connection, batch)
    assert hub.predictions == 3


def test_presence_and_reports_make_a_device(hub: Pipeline) -> None:
    hub.send("a", Presence("a", True, 7, "0.1.0").to_bytes(), "presence")
    hub.send("a", reported("a", clock=hub.clock.now - 100.0, release=RELEASE, provider="X"), "reported")
    hub.work()
    device = hub.devices.get("a")
    assert (device.online, device.channel, device.release, device.clock_skew_s) == (True, CHANNEL, RELEASE, -100.0)
    assert hub.devices.all(CHANNEL) == [device] and hub.devices.all("other") == []
    hub.clock.now += 50
    hub.send("a", Presence("a", False, 7, "0.1.0").to_bytes(), "presence")
    hub.work()
    later = hub.devices.get("a")
    assert (later.online, later.last_seen) == (False, hub.clock.now - 50), "a will is not the device speaking"


def test_a_report_that_the_broker_repeats_is_no_new_contact_and_no_new_skew(hub: Pipeline) -> None:
    payload = reported("a", clock=hub.clock.now)
    hub.send("a", payload, "reported")
    hub.work()
    first = hub.devices.get("a")
    hub.clock.now += 3600
    hub.send("a", payload, "reported")
    hub.work()
    assert hub.devices.get("a") == first


def test_a_state_that_the_hub_does_not_know_is_kept_as_it_is(hub: Pipeline) -> None:
    update = {"state": "levitating", "reason": "new in 2.0", "release": RELEASE, "attempt": 1, "rollout": "r1"}
    message = Reported.from_wire({"device": "a", "channel": CHANNEL, "release": None, "update": update, "future": [1]})
    hub.send("a", message.to_bytes(), "reported")
    hub.work()
    device = hub.devices.get("a")
    assert (device.update_state, device.update_rollout, device.update_reason) == ("levitating", "r1", "new in 2.0")
    assert device.reported["future"] == [1]


def test_a_reset_takes_everyone_for_offline_until_told_again(hub: Pipeline) -> None:
    for name in ("a", "b"):
        hub.send(name, Presence(name, True, 1, "").to_bytes(), "presence")
    hub.work()
    hub.ingest.connected()
    hub.send("b", Presence("b", True, 1, "").to_bytes(), "presence")
    hub.work()
    assert [device.online for device in hub.devices.all()] == [False, True]


@pytest.mark.parametrize(
    ("clock_skew_s", "end_s_ago", "expected_s_ago"),
    [(0.0, 0.0, 0.0), (0.0, 7200.0, 7200.0), (-7200.0, 7200.0, 0.0), (3600.0, -3600.0, 0.0), (0.0, -50.0, 0.0)],
)
def test_a_wrong_clock_does_not_misplace_a_window(
    hub: Pipeline, clock_skew_s: float, end_s_ago: float, expected_s_ago: float
) -> None:
    now = hub.clock.now
    hub.send("a", reported("a", clock=now + clock_skew_s), "reported")
    hub.send("a", envelope("a", 1, content=window(end=now - end_s_ago)))
    hub.work()
    ((start, _),) = hub.insights.range(CHANNEL)
    assert start == (now - expected_s_ago) // 60 * 60


def test_a_device_that_woke_up_in_1970_counts_for_the_present(hub: Pipeline) -> None:
    hub.send("a", envelope("a", 1, content=window(end=12.0)))
    hub.work()
    ((start, _),) = hub.insights.range(CHANNEL)
    assert start == hub.clock.now // 60 * 60


def test_ranges_of_intervals(hub: Pipeline) -> None:
    now = hub.clock.now // 60 * 60
    for number, ago in enumerate((180, 120, 120, 60), start=1):
        hub.send("a", envelope("a", number, content=window(end=now - ago)))
    hub.work()
    starts = [start for start, _ in hub.insights.range(CHANNEL)]
    assert starts == [now - 180, now - 120, now - 60]
    assert [row.merged for row in hub.insights.rows(CHANNEL)] == [1, 2, 1]
    assert [start for start, _ in hub.insights.range(CHANNEL, RELEASE, now - 120, now - 60)] == [now - 120]
    merged = hub.insights.merged(CHANNEL, RELEASE)
    assert merged is not None and merged.predictions == 12
    assert hub.insights.merged(CHANNEL, "sha256:" + "0" * 64) is None
    hub.clock.now += 1000
    hub.send("a", envelope("a", 5, content=window(end=now - 180)))
    hub.work()
    assert [row.start for row in hub.insights.rows(CHANNEL, updated_since=hub.clock.now)] == [now - 180]


@pytest.mark.parametrize("seed", range(6))
def test_totals_equal_the_ledgers_under_loss_duplicates_reordering_and_crashes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    hub = Pipeline(tmp_path, batch=chance.choice([1, 7, 256]))
    senders = [Sender(f"d{number}", seed * 10 + number) for number in range(4)]
    for _ in range(30):
        for sender in senders:
            for _ in range(chance.randrange(3)):
                sender.close()
        deliver(hub, senders, chance, loss=0.3)
        if chance.random() < 0.2:  # SIGKILL: what waits in memory is gone, records stay
            hub.db.close()
            hub = Pipeline(tmp_path, batch=chance.choice([1, 7, 256]))
    for _ in range(200):
        if not any(sender.outbox for sender in senders):
            break
        deliver(hub, senders, chance, loss=0.3)
    totals = hub.insights.totals()
    assert totals["predictions"] == sum(sender.ledger["predictions"] for sender in senders)
    assert totals["classes"] == [sum(column) for column in zip(*(s.classes for s in senders), strict=True)]
    for sender in senders:
        assert hub.devices.get(sender.device).totals["predictions"] == sender.ledger["predictions"]
    assert hub.quarantine.counts() == {}


def deliver(hub: Pipeline, senders: list[Sender], chance: random.Random, loss: float) -> None:
    wire = [(sender, payload) for sender in senders for payload in sender.envelopes()]
    wire += chance.choices(wire, k=len(wire) // 3) if wire else []
    chance.shuffle(wire)
    for sender, payload in wire:
        if chance.random() > loss:
            hub.send(sender.device, payload)
    hub.work()
    for sender in senders:
        for ack in hub.sent.acks(sender.device):
            if chance.random() > loss:
                sender.acknowledged(ack)
    hub.sent.messages.clear()


def test_the_worker_commits_what_waits_before_it_stops(hub: Pipeline) -> None:
    for number in range(1, 50):
        hub.send("a", envelope("a", number))
    stop = threading.Event()
    stop.set()
    hub.ingest.run(stop)
    assert hub.sent.acks("a")[-1].last == 49
