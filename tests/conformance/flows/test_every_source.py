"""The conformance kit of sources: what each kind promises, over its real outside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.flows.ports import Ended, Item, Rejected, Source
from edge_agent.serving.calls import Described
from edgeloop.package import OutputSpec, TensorSpec
from tests.conformance.flows.sources import KINDS, MqttWorld, SourceWorld, VideoWorld, rows, take, world_or_skip

MODEL = Described(
    "tiny", "1", ("1",), (TensorSpec("x", "FP32", (-1, 64)),), (OutputSpec("label", "INT64", (-1,), "label"),)
)


#: Frames are not asked for again, and a video is shown again by a restart, as a camera goes on filming.
asked_again = pytest.mark.parametrize("world", [k for k in KINDS if KINDS[k].asks_again], indirect=True)


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceWorld]:
    world = world_or_skip(request.param, tmp_path)
    yield world
    world.close()
    if isinstance(world, MqttWorld):
        world.broker.kill()


def opened(world: SourceWorld) -> Source:
    source = world.source()
    source.open()
    return source


def nothing_more(source: Source) -> bool:
    """Whether no item comes for a while."""
    try:
        return source.next(0.5) is None and source.next(0.1) is None
    except Ended:
        return True


def prepared(world: SourceWorld, count: int) -> list[np.ndarray]:
    """Rows that were given, whatever comes first: the source or its items."""
    if isinstance(world, MqttWorld):
        opened(world).close()  # subscribed once: from here on the broker keeps what comes
    given = rows(count)
    for row in given:
        world.give(row)
    return given


def inputs(source: Source, item: Item) -> np.ndarray:
    (found,) = source.read(item, MODEL).inputs.values()
    return np.asarray(found)


def test_items_come_in_order_with_their_tensors(world: SourceWorld) -> None:
    given = prepared(world, 4)
    source = opened(world)
    for row in given:
        item = take(source)
        found = inputs(source, item)
        assert found.shape == (1, 64) and found.dtype == np.float32
        assert np.allclose(found[0], row, atol=1e-6)
        assert item.key and item.about
        source.done(item)
    assert nothing_more(source)


@asked_again
def test_what_is_done_does_not_come_again(world: SourceWorld) -> None:
    prepared(world, 3)
    source = opened(world)
    for _ in range(3):
        source.done(take(source))
    source.close()
    assert nothing_more(opened(world))


@asked_again
def test_what_did_not_come_back_is_given_again(world: SourceWorld) -> None:
    given = prepared(world, 3)
    source = opened(world)
    source.done(take(source))
    lost = take(source)  # the agent is killed here
    source.close()
    source = opened(world)
    again = take(source)
    assert np.allclose(inputs(source, again)[0], given[1], atol=1e-6)
    assert (again.id == lost.id and again.id != "") or not world.same_id


def test_a_bad_item_is_rejected_once_and_the_next_one_comes(world: SourceWorld) -> None:
    if isinstance(world, VideoWorld):
        world.give_bad()
        source = opened(world)
        with pytest.raises(Rejected, match="max_pixels"):
            source.read(take(source), MODEL)
        return
    prepared(world, 0)
    world.give_bad()
    (row,) = rows(1)
    world.give(row)
    source = opened(world)
    bad = take(source)
    with pytest.raises(Rejected) as caught:
        source.read(bad, MODEL)
    source.reject(bad, str(caught.value))
    good = take(source)
    assert np.allclose(inputs(source, good)[0], row, atol=1e-6)
    source.done(good)
    source.close()
    assert nothing_more(opened(world))


def test_waiting_for_nothing_ends_in_time(world: SourceWorld) -> None:
    prepared(world, 1)
    source = opened(world)
    source.done(take(source))
    start = time.monotonic()
    assert nothing_more(source)
    assert time.monotonic() - start < 30  # bounded, not timed: a source that blocks would hold up the agent's stop


def test_it_can_be_closed_twice_and_opened_again(world: SourceWorld) -> None:
    prepared(world, 2)
    source = opened(world)
    source.done(take(source))
    source.close()
    source.close()
    source.open()
    assert take(source) is not None
    assert set(source.counts()) >= {"dropped"}


def test_a_model_without_the_named_input_says_so(world: SourceWorld) -> None:
    prepared(world, 1)
    source = world.source(input="y")
    source.open()
    with pytest.raises(Rejected, match="has no input y; it has x"):
        source.read(take(source), MODEL)
