"""The buffer in front of the records is bounded, and fair."""

from __future__ import annotations

import threading
import time

from cloud_hub.inbox import Inbox, Incoming


def message(kind: str, device: str, payload: bytes = b"x", released: list[bytes] | None = None) -> Incoming:
    return Incoming(kind, device, payload, 0.0, lambda: released.append(payload) if released is not None else None)


def test_order_is_kept() -> None:
    inbox = Inbox(10)
    for number in range(5):
        assert inbox.put(message("insights", "a", bytes([number])))
    assert [item.payload[0] for item in inbox.take(3, 0)] == [0, 1, 2]
    assert [item.payload[0] for item in inbox.take(3, 0)] == [3, 4]
    assert inbox.take(3, 0) == []


def test_one_device_cannot_fill_it_for_the_others() -> None:
    inbox = Inbox(100, most_each=10)
    taken = [inbox.put(message("insights", "flood")) for _ in range(1000)]
    assert sum(taken) == 10
    assert inbox.put(message("insights", "modest"))
    assert len(inbox) == 11
    inbox.take(100, 0)
    assert inbox.put(message("insights", "flood")), "there is room again"


def test_bytes_are_bounded_too() -> None:
    inbox = Inbox(100, most_bytes=1000)
    assert inbox.put(message("insights", "a", b"x" * 900))
    assert not inbox.put(message("insights", "b", b"x" * 200))
    inbox.take(10, 0)
    assert inbox.put(message("insights", "b", b"x" * 200))


def test_a_newer_report_takes_the_place_of_the_one_that_waits() -> None:
    released: list[bytes] = []
    inbox = Inbox(100, most_each=4)
    inbox.put(message("reported", "a", b"old", released))
    inbox.put(message("insights", "a", b"window"))
    for _ in range(20):
        assert inbox.put(message("reported", "a", b"new"))
    assert [item.payload for item in inbox.take(10, 0)] == [b"new", b"window"]
    assert released == [b"old"], "the broker is told that the old one was dealt with"


def test_presence_after_a_reset_stays_after_it() -> None:
    inbox = Inbox(100)
    inbox.put(message("presence", "a", b"before"))
    inbox.put(message("reset", "", b""))
    inbox.put(message("presence", "a", b"after"))
    assert [item.payload for item in inbox.take(10, 0)] == [b"before", b"", b"after"]


def test_take_wakes_up_for_the_first_message() -> None:
    inbox = Inbox(10)
    threading.Timer(0.05, lambda: inbox.put(message("insights", "a"))).start()
    began = time.monotonic()
    assert len(inbox.take(10, 5.0)) == 1
    assert time.monotonic() - began < 2.0
