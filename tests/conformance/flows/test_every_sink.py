"""The conformance kit of sinks: what each kind promises, with its real other side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.flows.ports import Stopped
from tests.conformance.flows.sinks import KINDS, SinkWorld, result
from tests.integration.hub_process import wait_for

NEVER = threading.Event()


#: A file has no other side that could be away.
with_another_side = pytest.mark.parametrize("world", [k for k in KINDS if KINDS[k].can_go], indirect=True)


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SinkWorld]:
    world = KINDS[request.param](tmp_path)
    yield world
    world.close()


def ids(*numbers: int) -> list[str]:
    return [f"p-{number}" for number in numbers]


def test_results_arrive_in_order_and_are_counted(world: SinkWorld) -> None:
    sink = world.sink()
    for number in range(20):
        sink.put(result(number), NEVER)
    wait_for(lambda: len(world.got()) >= 20, 30, f"20 results; {sink.counts()} {sink.trouble}")
    assert world.got() == ids(*range(20))
    wait_for(lambda: sink.counts()["delivered"] == 20 and not sink.counts()["waiting"], 10, "the count")
    counts = sink.counts()
    assert (counts["accepted"], counts["dropped"], counts["waiting"], sink.trouble) == (20, 0, 0, "")


def test_several_sources_may_put_at_once(world: SinkWorld) -> None:
    sink = world.sink()

    def put(first: int) -> None:
        for number in range(first, first + 25):
            sink.put(result(number), NEVER)

    threads = [threading.Thread(target=put, args=(first,)) for first in range(0, 100, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    wait_for(lambda: len(world.got()) >= 100, 30, "100 results")
    assert sorted(world.got()) == sorted(ids(*range(100)))


def test_what_was_taken_before_a_restart_arrives(world: SinkWorld) -> None:
    if world.can_go:
        world.go()
    sink = world.sink()
    for number in range(5):
        sink.put(result(number), NEVER)
    sink.stop(1.0)
    if world.can_go:
        world.come_back()
    world.sink().put(result(5), NEVER)
    wait_for(lambda: len(world.got()) >= 6, 30, "6 results")
    assert world.got() == ids(*range(6))


@with_another_side
def test_an_other_side_that_is_away_costs_nothing_but_time(world: SinkWorld) -> None:
    sink = world.sink()
    sink.put(result(0), NEVER)
    wait_for(lambda: world.got() == ids(0), 30, "the first")
    world.go()
    for number in range(1, 6):
        sink.put(result(number), NEVER)
    wait_for(lambda: sink.trouble and sink.counts()["failures"], 30, "the sink's trouble")
    world.come_back()
    wait_for(lambda: len(set(world.got())) == 6, 30, f"all 6: {world.got()}")
    # At least once: an answer that was lost with the connection makes a second one, under the same id.
    assert list(dict.fromkeys(world.got())) == ids(*range(6))
    wait_for(lambda: sink.trouble == "" and sink.counts()["waiting"] == 0, 10, "an end of the trouble")


@with_another_side
def test_a_full_spool_keeps_the_source_waiting_until_there_is_room(world: SinkWorld) -> None:
    world.go()
    sink = world.sink(spool_bytes=1 << 16)
    stopping, through = threading.Event(), []

    def put() -> None:
        for number in range(10):
            sink.put(result(number, 20_000), stopping)
            through.append(number)

    thread = threading.Thread(target=put)
    thread.start()
    wait_for(lambda: len(through) == 3, 20, "a full spool")
    assert sink.counts()["waiting_bytes"] <= 1 << 16
    thread.join(1.0)
    assert thread.is_alive() and len(through) == 3, "it waits"
    world.come_back()
    thread.join(30)
    assert not thread.is_alive() and len(through) == 10
    wait_for(lambda: len(set(world.got())) == 10, 30, "all 10")
    assert sink.counts()["dropped"] == 0


@with_another_side
def test_a_full_spool_may_drop_the_oldest_and_counts_them(world: SinkWorld) -> None:
    world.go()
    sink = world.sink(spool_bytes=1 << 16, when_full="drop_oldest")
    for number in range(10):
        sink.put(result(number, 20_000), NEVER)
    counts = sink.counts()
    assert counts["accepted"] == 10 and counts["dropped"] >= 7 and counts["waiting_bytes"] <= 1 << 16
    world.come_back()
    wait_for(lambda: sink.counts()["waiting"] == 0, 30, "the rest")
    counts = sink.counts()
    assert counts["delivered"] + counts["dropped"] == 10
    assert world.got()[-1] == "p-9"


def test_an_agent_that_stops_is_not_kept_waiting(world: SinkWorld) -> None:
    sink = world.sink(spool_bytes=1 << 16) if world.can_go else world.sink()
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Stopped):
        sink.put(result(0), stopping)
    assert sink.counts()["accepted"] == 0
    sink.stop(5.0)
    with pytest.raises(Stopped):
        sink.put(result(0), NEVER)
