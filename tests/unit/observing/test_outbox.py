"""The outbox: bounded at every moment, exact whatever is merged, sent and lost on the way."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.observing import ladder, rows
from edge_agent.observing.outbox import Outbox, OutboxRow
from edge_agent.observing.room import GIVE_UP_S, MERGE_S
from edge_agent.observing.rows import ROW_OVERHEAD_BYTES, pack, unpack
from edge_agent.observing.small_groups import PATIENCE_S
from edge_agent.observing.store import Store
from edgeloop.insights import Window, WindowSchema
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.counts import FEEDBACK
from edgeloop.insights.policy import ALWAYS, InsightsPolicy
from tests.unit.observing.doubles import digest

SCHEMA = WindowSchema(classes=3, features=64, inputs=8, projections=8)


def window(predictions: int, release: str = digest(1), at: float = 0.0, segment: str = "") -> Window:
    """A window with all that a device counts, so that there is something to give up."""
    made = Window.zero(SCHEMA, release=release, variant="v", provider="p", start=at, end=at + 1, segment=segment)
    random = np.random.default_rng(predictions)
    made.arrays["counts"][0] = predictions
    made.arrays["classes"][:] = random.multinomial(predictions, [0.5, 0.3, 0.2])
    for name in ("confidence", "inputs", "projections"):
        array = made.arrays[name]
        array[...] = random.multinomial(predictions, [0.1] * 10, size=array.shape[:-1])
    made.arrays["latency"][100:200] = random.multinomial(predictions, [0.01] * 100)
    values = random.normal(size=(predictions, 64))
    made.arrays["feature_sum"][:] = values.sum(axis=0)
    made.arrays["feature_squares"][:] = (values**2).sum(axis=0)
    return made


def put(outbox: Outbox, store: Store, predictions: int, release: str = digest(1), segment: str = "") -> int:
    with store.transaction() as db:
        body = pack(window(predictions, release, segment=segment))
        return outbox.append(db, release, segment, predictions, body)


def rows_of(store: Store) -> list[tuple[int | None, str, str, Window]]:
    """(first number or None, release, segment, window) by age."""
    found = store.rows("SELECT first, release, segment, body FROM outbox ORDER BY row")
    return [(first, release, segment, unpack(body, SCHEMA)) for first, release, segment, body in found]


def counts(store: Store) -> Counter[str]:
    total: Counter[str] = Counter()
    for _, release, _, found in rows_of(store):
        total[release] += found.predictions
        assert found.arrays["classes"].sum() == found.predictions
    return total


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "agent.db")


SIZE = len(pack(window(60))) + ROW_OVERHEAD_BYTES


def test_rows_come_in_order_and_leave_when_acknowledged(store: Store) -> None:
    outbox = Outbox(store, 1 << 20, lambda _: SCHEMA)
    assert [put(outbox, store, n) for n in (5, 6, 7)] == [1, 2, 3]
    assert (outbox.state().base, outbox.highest_sent()) == (1, 0)
    assert [(row.first, row.last) for row in outbox.send_next(2, 1 << 20)] == [(1, 1), (2, 2)]
    assert outbox.highest_sent() == 2
    assert outbox.acknowledge(3) == 2  # the third was never sent: no hub can have it
    assert outbox.state().base == 3
    assert outbox.sent_rows(0, 9, 1 << 20) == []
    assert [row.first for row in outbox.send_next(9, 1 << 20)] == [3]
    assert [row.first for row in outbox.sent_rows(0, 9, 1 << 20)] == [3]
    assert outbox.acknowledge(3) == 1
    assert (outbox.state().rows, outbox.state().base, outbox.state().last_seq) == (0, 4, 3)
    assert put(outbox, store, 1) == 4


def test_a_row_larger_than_the_share_is_sent_alone(store: Store) -> None:
    outbox = Outbox(store, 1 << 20, lambda _: SCHEMA)
    for n in range(3):
        put(outbox, store, n + 1)
    assert len(outbox.send_next(16, 1)) == 1
    assert len(outbox.send_next(16, 1 << 20)) == 2
    assert len(outbox.sent_rows(0, 16, 1)) == 1
    assert len(outbox.sent_rows(1, 16, 1 << 20)) == 2


def test_what_is_new_may_go_before_what_is_old_and_no_number_is_left_out(store: Store) -> None:
    outbox = Outbox(store, 12 * SIZE, lambda _: SCHEMA)
    for _ in range(40):
        put(outbox, store, 60)
    old = outbox.state()
    assert old.rows < 40, "some were merged"
    put(outbox, store, 1)
    (live,) = outbox.send_next(9, 1 << 20, above=old.newest)
    assert (live.first, live.last, unpack(live.body, SCHEMA).predictions) == (1, 1, 1)
    assert outbox.next_size(old.newest) is None
    rest = outbox.send_next(99, 1 << 20)
    assert [row.first for row in rest] == [2, *(row.last + 1 for row in rest[:-1])]
    assert rest[-1].last == 41 == outbox.state().last_seq


def test_a_full_outbox_merges_the_oldest_and_loses_no_count(store: Store) -> None:
    outbox = Outbox(store, 10 * SIZE, lambda _: SCHEMA)
    for n in range(200):
        put(outbox, store, n)
        assert outbox.state().bytes <= 10 * SIZE
    rows = store.rows("SELECT windows, body FROM outbox ORDER BY row")
    assert counts(store)[digest(1)] == sum(range(200))
    assert sum(windows for windows, _ in rows) == 200
    assert rows[-1][0] == 1, "what is new keeps its resolution"
    merged = unpack(rows[0][1], SCHEMA)
    assert (merged.start, merged.end) == (0.0, 1.0)
    assert outbox.state().level == 0, "time is given up before anything else"


def test_what_was_sent_is_never_merged(store: Store) -> None:
    outbox = Outbox(store, 10 * SIZE, lambda _: SCHEMA)
    for n in range(1, 5):
        put(outbox, store, n)
    sent = outbox.send_next(3, 1 << 20)
    for n in range(100):
        put(outbox, store, n)
    assert outbox.sent_rows(0, 99, 1 << 20) == sent
    assert outbox.state().bytes <= 10 * SIZE
    assert counts(store)[digest(1)] == 10 + sum(range(100))


def test_releases_and_segments_that_take_turns_are_merged_each_with_its_own(store: Store) -> None:
    outbox = Outbox(store, 10 * SIZE, lambda _: SCHEMA)
    for n in range(120):
        put(outbox, store, 60, digest(n % 3), "ab"[n // 3 % 2])
        assert outbox.state().bytes <= 10 * SIZE
    assert counts(store) == {digest(0): 2400, digest(1): 2400, digest(2): 2400}
    assert {segment for _, _, segment, _ in rows_of(store)} == {"a", "b"}


def test_things_are_given_up_in_their_order_and_counts_and_classes_never(tmp_path: Path) -> None:
    reached = []
    for number, limit in enumerate((7 * SIZE, 5 * SIZE, 3 * SIZE, 2 * SIZE, SIZE, 1)):
        store = Store(tmp_path / str(number) / "agent.db")
        outbox = Outbox(store, limit, lambda _: SCHEMA)
        for n in range(60):
            put(outbox, store, 60, digest(n % 2), "abc"[n % 3])
        state = outbox.state()
        assert limit == 1 or state.bytes <= limit
        assert counts(store) == {digest(0): 1800, digest(1): 1800}
        segments = {segment for _, _, segment, _ in rows_of(store)}
        # Segments are added together after all bins are as coarse as they get, and before any aspect goes.
        together = ladder.TOP - len(ladder.dropped_in_order())
        assert segments == {"a", "b", "c"} if state.level < together else "" in segments
        assert segments == {""} or state.level <= together
        reached.append(state.level)
        store.close(clean=True)
    assert reached == sorted(reached)
    assert 0 < reached[1] < reached[-1] == ladder.TOP


def test_every_rung_takes_something_and_the_last_leaves_counts_and_classes(store: Store) -> None:
    full = window(60, segment="a")
    full.arrays["confusion"][0, 0] = full.arrays["counts"][2] = 3
    lower = full
    for rung in ladder.RUNGS:
        below = rung.apply(lower)
        assert below.predictions == 60 and below.arrays["classes"].sum() == 60
        unpack(pack(below), SCHEMA)
        lower = below
    assert {name for name, array in lower.arrays.items() if array.any()} == {"counts", "classes"}
    assert lower.segment == ""
    assert ladder.dropped_in_order()[-1] == "head"
    assert ladder.name_of(0) == "" and "head" in ladder.name_of(ladder.TOP)


def test_the_page_says_the_order() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "windows.md").read_text()
    said = re.search(r"4\. aspects, one after the other: ([a-z, ]+)\.", page)
    assert said is not None and tuple(said[1].split(", ")) == ladder.dropped_in_order()
    assert set(ladder.dropped_in_order()) | set(ALWAYS) == {aspect.name for aspect in ASPECTS}


def test_one_row_never_takes_more_than_half_so_that_others_have_room_beside_it(store: Store) -> None:
    outbox = Outbox(store, SIZE, lambda _: SCHEMA)
    put(outbox, store, 60)
    assert outbox.state().bytes <= SIZE // 2
    outbox.send_next(1, 1)
    for n in range(20):
        put(outbox, store, 60, digest(n % 2))
        assert outbox.state().bytes <= SIZE
    assert sum(counts(store).values()) == 21 * 60


def test_what_is_left_of_a_release_is_kept_whatever_the_limit(store: Store) -> None:
    outbox = Outbox(store, 1, lambda _: SCHEMA)
    for n in range(30):
        put(outbox, store, 1, digest(n % 3))
    assert counts(store) == {digest(0): 10, digest(1): 10, digest(2): 10}
    assert outbox.state().rows == 3


def test_a_budget_bounds_what_waits_as_the_limit_does(store: Store) -> None:
    room = {MERGE_S: 0.4 * SIZE, GIVE_UP_S: 0.8 * SIZE}
    outbox = Outbox(store, 1 << 20, lambda _: SCHEMA, room=lambda seconds: room[seconds])
    for _ in range(50):
        put(outbox, store, 60)
        assert outbox.state().unsent_bytes <= room[GIVE_UP_S]
    assert outbox.state().rows == 1 and 0 < outbox.state().level < ladder.TOP
    assert counts(store)[digest(1)] == 3000
    room[GIVE_UP_S] = 8 * SIZE
    put(outbox, store, 60, digest(2))
    assert outbox.state().rows == 2
    for _ in range(5):
        put(outbox, store, 60, digest(2))
    assert outbox.state().rows == 2, "what cannot leave within an hour is merged"
    whole = unpack(store.rows("SELECT body FROM outbox ORDER BY row DESC")[0][0], SCHEMA)
    assert whole.arrays["confidence"].sum() == 360, "and gives up no more where it can leave within half a day"
    room = dict.fromkeys(room, float("inf"))
    assert outbox.send_next(99, 1 << 20)
    put(outbox, store, 60)
    assert outbox.state().level == 0, "with room again, what is new is whole"


def test_a_damaged_row_is_set_apart_and_holds_up_nothing(store: Store) -> None:
    outbox = Outbox(store, 4 * SIZE, lambda _: SCHEMA)
    put(outbox, store, 60)
    with store.transaction() as db:
        db.execute("UPDATE outbox SET body = zeroblob(length(body))")
    for _ in range(20):
        put(outbox, store, 60)
    assert outbox.state().bytes <= 4 * SIZE
    rows = outbox.send_next(99, 1 << 20)
    assert sum(row.last - row.first + 1 for row in rows) == 21
    assert rows[-1].last == 21


def test_windows_that_are_too_large_together_lose_head_statistics_and_no_count(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labelled(share: str) -> bytes:
        made = window(60)
        made.arrays["counts"][FEEDBACK] += 1
        made.arrays[f"head_{share}_count"][0] = 1
        made.arrays[f"head_{share}_sum"][0] = made.arrays[f"head_{share}_gram"][...] = 1.0
        return pack(made)

    bodies = [labelled(share) for share in ("fit", "holdout")]
    monkeypatch.setattr(rows, "MAX_WINDOW_BYTES", max(map(len, bodies)) + 64)
    outbox = Outbox(store, 1 << 20, lambda _: SCHEMA, room=lambda within_s: 1.0)
    for body in bodies:
        with store.transaction() as db:
            outbox.append(db, digest(1), "", 60, body)
    ((_, _, _, found),) = rows_of(store)
    assert (found.predictions, found.feedback, found.arrays["head_fit_count"].sum()) == (120, 2, 0)


# -- what the policy says ----------------------------------------------------------------------------------------------


def test_aspects_that_are_not_wanted_any_more_do_not_leave(store: Store) -> None:
    policy = InsightsPolicy()
    outbox = Outbox(store, 1 << 20, lambda _: SCHEMA, policy=lambda: policy)
    put(outbox, store, 60)
    policy = InsightsPolicy(aspects=("confidence", "of a newer hub"))
    (row,) = outbox.send_next(1, 1)
    found = {name for name, array in unpack(row.body, SCHEMA).arrays.items() if array.any()}
    assert found == {"counts", "classes", "confidence"}
    assert outbox.sent_rows(0, 1, 1) == [row], "sent again, it is the same"


class Wall:
    now = 1e9

    def __call__(self) -> float:
        return self.now


def test_a_window_of_a_small_group_waits_for_more(store: Store) -> None:
    outbox = Outbox(store, 1 << 20, lambda _: SCHEMA, policy=lambda: InsightsPolicy(min_group=50))
    for predictions in (20, 20):
        put(outbox, store, predictions)
        assert outbox.next_size() is None and outbox.send_next(9, 1 << 20) == []
    put(outbox, store, 60, digest(2))
    assert [row.release for row in outbox.send_next(9, 1 << 20)] == [digest(2)], "it holds up no other"
    put(outbox, store, 20)
    (row,) = outbox.send_next(9, 1 << 20)
    assert (row.first, row.last, unpack(row.body, SCHEMA).predictions) == (2, 4, 60)
    assert outbox.state().rows == 2 and outbox.highest_sent() == 4


@pytest.mark.parametrize("passes_s", [PATIENCE_S + 1, -1e9])
def test_a_small_segment_joins_the_others_when_it_has_waited(store: Store, passes_s: float) -> None:
    wall = Wall()
    policy = InsightsPolicy(min_group=50)
    outbox = Outbox(store, 1 << 20, lambda _: SCHEMA, policy=lambda: policy, wall=wall)
    put(outbox, store, 30, segment="a")
    put(outbox, store, 30, segment="b")
    assert outbox.send_next(9, 1 << 20) == []
    wall.now += passes_s  # a clock that is set back must not keep them for ever
    put(outbox, store, 60, segment="c")
    sent = {unpack(row.body, SCHEMA).segment: unpack(row.body, SCHEMA) for row in outbox.send_next(9, 1 << 20)}
    assert {segment: found.predictions for segment, found in sent.items()} == {"other": 60, "c": 60}


# -- whatever happens --------------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(st.just("put"), st.integers(0, 3))
    | st.tuples(st.just("send"), st.integers(1, 4))
    | st.tuples(st.just("live"), st.integers(1, 4))
    | st.tuples(st.just("ack"), st.integers(0, 60)),
    max_size=60,
)


@given(steps, st.sampled_from([0, 3]), st.sampled_from([0.8, 3.0, 6.0]))
@example([("put", 0), ("put", 0), ("put", 0), ("send", 3), ("put", 0)], 0, 3.0)  # nearly all of the room is under way
@settings(max_examples=40, deadline=None)
def test_whatever_happens_no_count_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, todo: object, min_group: int, limit: float
) -> None:
    store = Store(tmp_path_factory.mktemp("outbox") / "agent.db")
    policy = InsightsPolicy(min_group=min_group)
    outbox = Outbox(store, int(limit * SIZE), lambda _: SCHEMA, policy=lambda: policy)
    put_in: Counter[str] = Counter()
    hub: dict[int, tuple[str, int]] = {}  # what a hub that dedupes by number has counted
    highest = 0

    def take(rows: list[OutboxRow]) -> None:
        nonlocal highest
        for row in rows:
            assert row.first == highest + 1, "numbers have no gap, and none comes twice"
            hub[row.first] = (row.release, unpack(row.body, SCHEMA).predictions)
            highest = row.last

    for what, number in todo:  # type: ignore[attr-defined]
        if what == "put":
            put(outbox, store, number + 1, digest(number % 2), "ab"[number // 2])
            put_in[digest(number % 2)] += number + 1
            state = outbox.state()
            sent = state.bytes - state.unsent_bytes  # what has left may have been counted, and stays as it is
            assert state.bytes <= max(int(limit * SIZE), sent + 2 * SIZE)
        elif what == "send":
            take(outbox.send_next(number, 1 << 20))
        elif what == "live":
            take(outbox.send_next(number, 1 << 20, above=outbox.state().last_seq - number))
        else:
            outbox.acknowledge(min(number, highest))
    policy = InsightsPolicy()
    take(outbox.send_next(1000, 1 << 30))
    counted: Counter[str] = Counter()
    for release, predictions in hub.values():
        counted[release] += predictions
    assert counted == put_in
    assert highest == outbox.state().last_seq
    store.close(clean=True)
