"""Exactly-once as a rule: whatever the network does to envelopes, every number is counted once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_hub.delivery import judge


@pytest.mark.parametrize(
    ("mark", "first", "last", "base", "action", "new_mark", "gap"),
    [
        (None, 1, 1, 1, "apply", 1, 0),
        (None, 1, 4, 1, "apply", 4, 0),
        (None, 7, 7, 7, "apply", 7, 6),  # the hub's records were lost, or the device's first windows
        (None, 2, 2, 1, "early", 0, 0),  # number 1 is still in the outbox: it must not be passed
        (3, 4, 4, 4, "apply", 4, 0),
        (3, 4, 9, 2, "apply", 9, 0),  # base is behind: the acknowledgement was lost
        (3, 6, 6, 6, "apply", 6, 2),
        (3, 6, 6, 4, "early", 3, 0),
        (3, 3, 3, 3, "duplicate", 3, 0),
        (3, 1, 2, 1, "duplicate", 3, 0),
        (3, 2, 5, 2, "overlap", 5, 0),
        (3, 3, 4, 1, "overlap", 4, 0),
    ],
)
def test_each_row_of_the_table(
    mark: int | None, first: int, last: int, base: int, action: str, new_mark: int, gap: int
) -> None:
    verdict = judge(mark, first, last, base)
    assert (verdict.action, verdict.mark, verdict.gap) == (action, new_mark, gap)


class Device:
    """An honest sender: it sends from the bottom of its outbox and forgets only what is acknowledged."""

    def __init__(self, windows: int) -> None:
        self.outbox = list(range(1, windows + 1))

    def envelopes(self, ahead: int) -> list[tuple[int, int, int]]:
        return [(number, number, self.outbox[0]) for number in self.outbox[:ahead]]

    def acknowledged(self, last: int) -> None:
        self.outbox = [number for number in self.outbox if number > last]


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), windows=st.integers(1, 30))
def test_loss_duplicates_and_reordering_lose_and_count_nothing_twice(seed: int, windows: int) -> None:
    chance = random.Random(seed)
    device, mark, counted = Device(windows), None, []
    wire: list[tuple[int, int, int]] = []
    for _ in range(10_000):
        if not device.outbox:
            break
        for envelope in device.envelopes(ahead=8):
            wire += [envelope] * chance.choice([0, 1, 1, 2])
        chance.shuffle(wire)
        kept = wire[: chance.randrange(len(wire) + 1)]  # the rest comes later, or much later
        wire = wire[len(kept) :][:50]
        for first, last, base in kept:
            verdict = judge(mark, first, last, base)
            assert verdict.action != "overlap", "an honest sender never gives rise to one"
            assert verdict.gap == 0
            if verdict.action == "apply":
                counted.append(first)
                mark = verdict.mark
            if chance.random() < 0.6:  # else the acknowledgement is lost
                device.acknowledged(verdict.mark)
    assert not device.outbox
    assert counted == list(range(1, windows + 1))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 5), st.integers(0, 5)).map(
            lambda t: (t[0], t[0] + t[1], max(1, t[0] - t[2]))
        ),
        max_size=40,
    )
)
def test_a_liar_never_moves_a_mark_back(envelopes: list[tuple[int, int, int]]) -> None:
    mark: int | None = None
    applied: list[tuple[int, int]] = []
    for first, last, base in envelopes:
        verdict = judge(mark, first, last, base)
        assert verdict.mark >= (mark or 0)
        assert verdict.gap >= 0
        if verdict.action == "apply":
            assert all(first > older for _, older in applied), "no number is counted twice"
            applied.append((first, last))
        if verdict.action in ("apply", "overlap"):
            mark = verdict.mark
