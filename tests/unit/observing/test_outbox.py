from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.observing.outbox import Outbox, OutboxRow, pack, unpack
from edge_agent.observing.store import Store
from edgeloop.insights import Window, WindowSchema
from tests.unit.observing.doubles import digest

SCHEMA = WindowSchema(classes=3, features=0, inputs=0, projections=0)


def window(predictions: int, release: str = digest(1), at: float = 0.0) -> Window:
    made = Window.zero(SCHEMA, release=release, variant="v", provider="p", start=at, end=at + 1)
    made.arrays["counts"][0] = predictions
    made.arrays["classes"][0] = predictions
    made.arrays["confidence"][0] = predictions
    return made


def put(outbox: Outbox, store: Store, predictions: int, release: str = digest(1)) -> int:
    with store.transaction() as db:
        return outbox.append(db, release, pack(window(predictions, release)))


def rows_of(store: Store) -> list[tuple[OutboxRow, bool]]:
    found = store.rows("SELECT first, last, release, body, sent FROM outbox ORDER BY first")
    return [(OutboxRow(*row[:4]), bool(row[4])) for row in found]


def counts(store: Store) -> Counter[str]:
    total: Counter[str] = Counter()
    for row, _ in rows_of(store):
        total[row.release] += unpack(row.body, SCHEMA).predictions
    return total


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "agent.db")


SIZE = len(pack(window(1))) + 200


def test_rows_come_in_order_and_leave_when_acknowledged(store: Store) -> None:
    outbox = Outbox(store, 1 << 20, lambda _: SCHEMA)
    assert [put(outbox, store, n) for n in (5, 6, 7)] == [1, 2, 3]
    assert outbox.state().base == 1
    first = outbox.take_to_send(0, 2, 1 << 20)
    assert [(row.first, row.last) for row in first] == [(1, 1), (2, 2)]
    assert outbox.highest_sent() == 2
    assert outbox.acknowledge(3) == 2  # the third was never sent: no hub can have it
    assert outbox.state().base == 3
    assert [row.first for row in outbox.take_to_send(0, 9, 1 << 20)] == [3]
    assert outbox.acknowledge(3) == 1
    assert (outbox.state().rows, outbox.state().base, outbox.state().last_seq) == (0, 4, 3)
    assert put(outbox, store, 1) == 4


def test_a_row_larger_than_the_share_is_sent_alone(store: Store) -> None:
    outbox = Outbox(store, 1 << 20, lambda _: SCHEMA)
    for n in range(3):
        put(outbox, store, n + 1)
    assert len(outbox.take_to_send(0, 16, 1)) == 1
    assert len(outbox.take_to_send(1, 16, 1 << 20)) == 2


def test_a_full_outbox_merges_the_oldest_and_loses_no_count(store: Store) -> None:
    outbox = Outbox(store, 10 * SIZE, lambda _: SCHEMA)
    for n in range(200):
        put(outbox, store, n)
        assert outbox.state().bytes <= 10 * SIZE
    rows = [row for row, _ in rows_of(store)]
    assert counts(store)[digest(1)] == sum(range(200))
    assert (rows[0].first, rows[-1].last) == (1, 200)
    assert all(before.last + 1 == after.first for before, after in itertools.pairwise(rows))
    assert rows[-1].first == rows[-1].last  # what is new keeps its resolution
    merged = unpack(rows[0].body, SCHEMA)
    assert (merged.start, merged.end) == (0.0, 1.0)


def test_what_was_sent_is_never_merged(store: Store) -> None:
    outbox = Outbox(store, 10 * SIZE, lambda _: SCHEMA)
    for n in range(1, 5):
        put(outbox, store, n)
    sent = outbox.take_to_send(0, 3, 1 << 20)
    for n in range(100):
        put(outbox, store, n)
    kept = [row for row, was_sent in rows_of(store) if was_sent]
    assert kept == sent
    assert outbox.state().bytes <= 10 * SIZE
    assert counts(store)[digest(1)] == 10 + sum(range(100))


def test_releases_that_take_turns_are_brought_together(store: Store) -> None:
    outbox = Outbox(store, 8 * SIZE, lambda _: SCHEMA)
    for n in range(120):
        put(outbox, store, 1, digest(n % 3))
        assert outbox.state().bytes <= 8 * SIZE
    rows = [row for row, _ in rows_of(store)]
    assert counts(store) == {digest(0): 40, digest(1): 40, digest(2): 40}
    assert (rows[0].first, rows[-1].last) == (1, 120)
    assert all(before.last + 1 == after.first for before, after in itertools.pairwise(rows))


def test_one_row_a_release_is_kept_whatever_the_limit(store: Store) -> None:
    outbox = Outbox(store, 1, lambda _: SCHEMA)
    for n in range(30):
        put(outbox, store, 1, digest(n % 3))
    assert counts(store) == {digest(0): 10, digest(1): 10, digest(2): 10}
    assert outbox.state().rows == 3


steps = st.lists(
    st.tuples(st.just("put"), st.integers(0, 3))
    | st.tuples(st.just("send"), st.integers(1, 4))
    | st.tuples(st.just("ack"), st.integers(0, 60)),
    max_size=60,
)


@given(steps)
@settings(max_examples=40, deadline=None)
def test_whatever_happens_no_count_is_lost_or_doubled(tmp_path_factory: pytest.TempPathFactory, todo: object) -> None:
    store = Store(tmp_path_factory.mktemp("outbox") / "agent.db")
    outbox = Outbox(store, 6 * SIZE, lambda _: SCHEMA)
    put_in: Counter[str] = Counter()
    hub: dict[int, tuple[str, int, int]] = {}  # what a hub that dedupes by number has counted
    after = 0
    for what, number in todo:  # type: ignore[attr-defined]
        if what == "put":
            put(outbox, store, number + 1, digest(number))
            put_in[digest(number)] += number + 1
        elif what == "send":
            for row in outbox.take_to_send(after, number, 1 << 20):
                for seen in range(row.first, row.last + 1):
                    assert seen not in hub
                hub[row.first] = (row.release, row.last, unpack(row.body, SCHEMA).predictions)
                for seen in range(row.first + 1, row.last + 1):
                    hub[seen] = ("", 0, 0)
                after = row.last
        else:
            outbox.acknowledge(min(number, after))
    for row in outbox.take_to_send(after, 1000, 1 << 30):
        hub[row.first] = (row.release, row.last, unpack(row.body, SCHEMA).predictions)
    counted: Counter[str] = Counter()
    for release, _, predictions in hub.values():
        if release:
            counted[release] += predictions
    assert counted == put_in
    store.close(clean=True)
