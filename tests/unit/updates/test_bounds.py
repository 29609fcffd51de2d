"""Bandwidth, waits and room on the disk: bounds that are computed, with a clock that is driven."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from edge_agent.updates.bandwidth import TokenBucket
from edge_agent.updates.fetch import retry_after_s
from edge_agent.updates.rules import LONGEST_ASKED_S, LONGEST_WAIT_S, wait_s
from edge_agent.updates.space import shortage, used_bytes


@pytest.mark.parametrize("chunk", [100, 1_000, 70_000])
def test_a_bucket_holds_the_rate_whatever_the_chunks(chunk: int) -> None:
    now, taken = 0.0, 0
    bucket = TokenBucket(10_000, now)
    while now < 100:
        taken += chunk
        now += bucket.take(chunk, now)
    assert taken <= 10_000 * (now + 1)
    assert taken >= 10_000 * (now - 1)


def test_a_pause_gives_no_more_than_a_second_of_credit() -> None:
    bucket = TokenBucket(1000, 0.0)
    assert bucket.take(1000, 3600.0) == 0.0
    assert bucket.take(1000, 3600.0) == 1.0


def test_no_bound_no_wait() -> None:
    assert TokenBucket(0, 0.0).take(10**12, 0.0) == 0.0


def test_waits_are_jittered_bounded_and_longer_when_the_hub_asks() -> None:
    chance = random.Random(1)
    for failures in (0, 1, 5, 30, 10_000, 10**9):
        waits = [wait_s(failures, chance) for _ in range(200)]
        assert min(waits) >= 0.5 and max(waits) <= LONGEST_WAIT_S
        asked = [wait_s(failures, chance, 60.0) for _ in range(200)]
        assert min(asked) >= 60 and len(set(asked)) > 100, "not all devices at that moment"
    assert max(waits) > LONGEST_WAIT_S / 2 and min(waits) < LONGEST_WAIT_S / 4, "full jitter"
    assert LONGEST_ASKED_S <= wait_s(0, chance, 1e12) <= LONGEST_ASKED_S + LONGEST_WAIT_S


def test_retry_after_is_read_as_seconds_or_as_a_date_by_the_hubs_own_clock() -> None:
    date = "Thu, 26 Nov 2026 08:00:00 GMT"
    assert retry_after_s({"retry-after": "120"}) == 120
    assert retry_after_s({"retry-after": "Thu, 26 Nov 2026 08:00:30 GMT", "date": date}) == 30
    assert retry_after_s({"retry-after": "Thu, 26 Nov 2026 07:00:00 GMT", "date": date}) == 0
    for nonsense in ("", "soon", "-5", "1e9", "Thu, 99 Foo 2026", "9" * 400):
        assert 0 <= retry_after_s({"retry-after": nonsense, "date": date}) < 1e9
    assert retry_after_s({"retry-after": date}) == 0 and retry_after_s({}) == 0


def test_a_file_with_two_names_takes_its_room_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100_000))
    once = used_bytes(tmp_path)
    assert once >= 100_000
    (tmp_path / "sub").mkdir()
    os.link(tmp_path / "a", tmp_path / "sub" / "b")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert used_bytes(tmp_path) < once + 10_000


def test_the_reason_says_which_bound_and_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100_000))
    assert shortage(tmp_path, 1000, reserve=0, quota=0) == ""
    assert shortage(tmp_path, 1000, reserve=0, quota=500_000) == ""
    assert "disk_quota_bytes" in shortage(tmp_path, 450_000, reserve=0, quota=500_000)
    assert "disk_reserve_bytes" in shortage(tmp_path, 0, reserve=1 << 62, quota=0)
