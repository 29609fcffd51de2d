"""Webhooks to a real HTTP server: signed, tried again, each alarm told although the hub is killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_hub.alarms import Alarms, Evidence
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.webhooks import KEPT_S, LONGEST_WAIT_S, MOST_ATTEMPTS, Webhooks
from tests.doubles.new_records import new_records
from tests.doubles.receiver import Receiver
from tests.integration.brokers import free_port
from tests.integration.hub_process import HubProcess, wait_for
from tests.integration.loop_world import Clock

ASPECT = {
    "against": "profile",
    "name": "inputs[0]",
    "effect": 0.4,
    "moved": "input mean: 40 % of the mass moved upward",
}
EVIDENCE = Evidence([ASPECT], p_value=1e-9, suggestion="look")


class Records:
    """The hub's alarms and webhooks over a file, with a clock to turn; ``reopened`` is the hub after a restart."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.folder, self.clock, self.chance = folder, clock or Clock(), 1.0
        self.db = new_records(folder)
        self.webhooks = Webhooks(self.db, clock=self.clock, chance=lambda: self.chance)
        self.alarms = Alarms(self.db, self.webhooks.tell_alarm)

    def reopened(self) -> Records:
        self.db.close()
        return Records(self.folder, self.clock)

    def alarm(self, channel: str = "stable") -> int:
        with self.db.begin() as connection:
            return self.alarms.raise_alarm(
                connection, channel, "sha256:a", since=1.0, settled=2.0, seen=3.0, now=4.0, evidence=EVIDENCE
            ).id


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path)
    yield records
    records.db.close()


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*answers: int, then: int = 204) -> Receiver:
        made.append(Receiver(*answers, then=then))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


def test_an_alarm_is_told_signed(records: Records, receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    webhook = records.webhooks.add(receiver.url)
    alarm = records.alarm()
    records.webhooks.tick()
    (got,) = receiver.received
    assert got.signed_with(webhook.secret) and not got.signed_with("whsec_" + "A" * 32)
    told = json.loads(got.body)
    assert told["type"] == "alarm.raised" and told["timestamp"].startswith("2027-")
    assert told["data"]["id"] == alarm and told["data"]["aspects"] == [ASPECT]
    assert told["data"]["certainty"] == pytest.approx(1.0) and told["data"]["suggestion"] == "look"
    (delivery,) = records.webhooks.deliveries(webhook.id)
    assert (delivery.state, delivery.attempts, delivery.outcome) == ("delivered", 1, "it answered 204")
    records.webhooks.tick()
    assert len(receiver.received) == 1


def test_the_life_of_an_alarm_is_told(records: Records, receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    records.webhooks.add(receiver.url)
    number = records.alarm()
    records.alarms.acknowledge(number, "ada", 5.0)
    with records.db.begin() as connection:
        wider = Evidence([ASPECT], devices=("cam-1",))
        records.alarms.note(connection, records.alarms.get(number), seen=6.0, evidence=wider)
        records.alarms.note(connection, records.alarms.get(number), seen=7.0, evidence=wider)
        records.alarms.close(connection, records.alarms.get(number), "gone", 8.0)
    for _ in range(6):
        records.webhooks.tick()
    told = [json.loads(got.body) for got in receiver.received]
    assert [one["type"] for one in told] == ["alarm.raised", "alarm.acknowledged", "alarm.changed", "alarm.closed"]
    assert told[-1]["data"]["acknowledged_by"] == "ada" and told[-1]["data"]["devices"] == ["cam-1"]


def test_what_failed_is_tried_again_with_the_same_id_and_longer_waits(
    records: Records, receive: Callable[..., Receiver]
) -> None:
    receiver = receive(503, 500, 302, 429)
    webhook = records.webhooks.add(receiver.url)
    records.alarm()
    waits = []
    for _ in range(5):
        records.webhooks.tick()
        (delivery,) = records.webhooks.deliveries(webhook.id)
        waits.append(delivery.due - records.clock())
        records.webhooks.tick()  # nothing is due yet
        records.clock.now = max(records.clock.now, delivery.due)
    assert waits[:4] == pytest.approx([2.0, 4.0, 8.0, 16.0])
    assert len(receiver.received) == 5, "a redirection is not followed"
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len({got.body for got in receiver.received}) == 1
    assert all(got.signed_with(webhook.secret) for got in receiver.received)
    assert records.webhooks.deliveries(webhook.id)[0].state == "delivered"
    assert records.webhooks.counts() == {"waiting": 0, "delivered": 1, "given up": 0}


def test_jitter_is_full(records: Records, receive: Callable[..., Receiver]) -> None:
    receiver = receive(then=500)
    webhook = records.webhooks.add(receiver.url)
    records.alarm()
    records.chance = 0.0
    records.webhooks.tick()
    (delivery,) = records.webhooks.deliveries(webhook.id)
    assert delivery.due == records.clock(), "from no wait at all to the longest"


def test_nobody_is_tried_for_ever(records: Records) -> None:
    webhook = records.webhooks.add(f"http://127.0.0.1:{free_port()}/nobody")
    records.alarm()
    for _ in range(MOST_ATTEMPTS + 3):
        records.webhooks.tick()
        records.clock.now += LONGEST_WAIT_S
    (delivery,) = records.webhooks.deliveries(webhook.id)
    assert (delivery.state, delivery.attempts) == ("given up", MOST_ATTEMPTS)
    assert "ConnectError" in delivery.outcome and delivery.ended
    records.clock.now += KEPT_S + 1
    records.webhooks.tick()
    assert records.webhooks.deliveries(webhook.id) == []


def test_who_is_gone_is_told_no_more(records: Records, receive: Callable[..., Receiver]) -> None:
    receiver = receive(410)
    webhook = records.webhooks.add(receiver.url)
    records.alarm()
    records.alarm()
    records.webhooks.tick()
    records.webhooks.tick()
    records.alarm()
    assert len(receiver.received) == 1 and "410" in records.webhooks.get(webhook.id).stopped
    assert [delivery.state for delivery in records.webhooks.deliveries(webhook.id)] == ["given up", "given up"]


def test_one_that_fails_does_not_hold_up_the_others(records: Records, receive: Callable[..., Receiver]) -> None:
    bad, good, other = receive(then=500), receive(), receive()
    records.webhooks.add(bad.url)
    records.webhooks.add(good.url)
    records.webhooks.add(other.url, channel="night")
    records.alarm()
    records.alarm()
    records.webhooks.tick()
    records.webhooks.tick()
    assert (len(bad.received), len(good.received), len(other.received)) == (2, 2, 0)
    records.alarm("night")
    records.webhooks.tick()
    assert len(other.received) == 1


def test_what_waits_survives_a_restart_and_what_was_removed_does_not(
    records: Records, receive: Callable[..., Receiver]
) -> None:
    receiver, removed = receive(500), receive()
    webhook = records.webhooks.add(receiver.url)
    gone = records.webhooks.add(removed.url)
    records.alarm()
    records.webhooks.remove(gone.id)
    records.webhooks.tick()
    again = records.reopened()
    again.clock.now += LONGEST_WAIT_S
    again.webhooks.tick()
    assert len(receiver.received) == 2 and not removed.received
    assert again.webhooks.deliveries(webhook.id)[0].state == "delivered"
    with pytest.raises(NotFound):
        again.webhooks.deliveries(gone.id)
    again.db.close()


def test_an_alarm_that_is_rolled_back_is_not_told(records: Records, receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    records.webhooks.add(receiver.url)
    with pytest.raises(RuntimeError), records.db.begin():
        records.alarm()
        raise RuntimeError("the disk is full")
    records.webhooks.tick()
    assert not receiver.received and records.alarms.newest() == []


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("ftp://example.org", None),
        ("https://", None),
        ("https://example.org:99999/", None),
        ("https://exa mple.org/", None),
        ("https://example.org/" + "x" * 2000, None),
        ("https://example.org/", "whsec_c2hvcnQ="),
        ("https://example.org/", "secret"),
        ("https://example.org/", "whsec_!" + "A" * 40),
    ],
)
def test_what_is_no_webhook(records: Records, url: str, secret: str | None) -> None:
    with pytest.raises(BadRequest):
        records.webhooks.add(url, secret=secret)
    assert records.webhooks.all() == []


def test_a_hub_that_is_killed_tells_after_its_restart(tmp_path: Path, receive: Callable[..., Receiver]) -> None:
    """Over HTTP, with a real process: what it had taken on is told, although the receiver and then the hub failed."""
    receiver = receive(then=503)
    hub = HubProcess(tmp_path / "hub")
    try:
        hub.start()
        added: dict[str, Any] = hub.api.post("/api/v1/webhooks", json={"url": receiver.url}).json()
        assert "secret" not in hub.get("webhooks")[0]
        message = hub.api.post(f"/api/v1/webhooks/{added['id']}/test").json()["message"]
        wait_for(lambda: receiver.received, what="the first try")
        hub.kill()
        receiver.then = 204
        before = len(receiver.received)
        hub.start()
        wait_for(lambda: len(receiver.received) > before, what="a try after the restart")
        last = receiver.received[-1]
        assert last.headers["webhook-id"] == message and last.signed_with(added["secret"])
        deliveries = f"webhooks/{added['id']}/deliveries"
        wait_for(lambda: hub.get(deliveries)[0]["state"] == "delivered", what="the delivery to be noted")
        assert 'cloud_hub_webhook_deliveries{state="delivered"} 1.0' in hub.api.get("/metrics").text
        assert hub.api.post("/api/v1/webhooks", json={"url": "nowhere"}).status_code == 422
        assert hub.api.delete(f"/api/v1/webhooks/{added['id']}").status_code == 204
        assert hub.api.delete(f"/api/v1/webhooks/{added['id']}").status_code == 404
    finally:
        hub.close()
