"""The conformance kit, on the way: the same bytes everywhere, of a fixed size, checked, kept by old readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.insights import HISTOGRAMS, InsightsError, Window, coarsen
from edgeloop.insights import schema as schemas
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.aspects.base import Aspect
from edgeloop.insights.layout import layout_of
from edgeloop.insights.levels import known_at
from edgeloop.insights.packing import MAX_COUNT_BYTES
from edgeloop.insights.wire import MAX_DEVICE_COUNT, arrays_to_wire
from tests.conformance.aspects.kit import digests, same, shown, worlds
from tests.conformance.aspects.write_goldens import GOLDENS
from tests.doubles.wired import arrays_in, with_arrays

every_aspect = pytest.mark.parametrize(
    ("aspect", "name"), shown(), ids=[f"{aspect.name}-{name}" for aspect, name in shown()]
)


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_another_process_with_another_hash_seed_counts_the_same(seed: str) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "tests.conformance.aspects.write_goldens", "--print"],
        env={**os.environ, "PYTHONHASHSEED": seed},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(child.stdout) == digests()


@every_aspect
def test_it_counts_what_was_written_down_once(aspect: Aspect, name: str) -> None:
    """Whatever the machine. If this fails, windows no longer fit the profiles of released packages: find out why.

    A new aspect is not written down yet: ``python -m tests.conformance.aspects.write_goldens``.
    """
    assert digests()[f"{name}/{aspect.name}"] == json.loads(GOLDENS.read_text()).get(f"{name}/{aspect.name}")


@every_aspect
def test_it_survives_the_wire(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    window = world.fill()
    read = Window.from_wire(window.to_wire(), window.schema)
    assert all(np.array_equal(array, read.arrays[key]) for key, array in world.own(aspect, window).items())
    assert read.to_bytes() == window.to_bytes() == Window.from_bytes(window.to_bytes(), window.schema).to_bytes()


@every_aspect
def test_its_size_does_not_grow_with_the_traffic(aspect: Aspect, name: str) -> None:
    world = worlds()[name]
    window = world.fill()
    for _ in range(40):
        window = window.merge(window)
    specs = aspect.arrays(window.schema)
    own = {key: array for key, array in window.arrays.items() if key in specs}
    wire = arrays_to_wire(own)
    assert len(wire["counts"]) + len(wire["sums"]) <= sum(MAX_COUNT_BYTES * specs[key].size for key in own)


def of_another_kind(array: Any) -> Any:
    return array.astype(np.int64 if array.dtype.kind == "f" else np.float64)


def out_of_range(array: Any) -> Any:
    return np.full(array.size, np.nan if array.dtype.kind == "f" else MAX_DEVICE_COUNT + 1)


def infinite(array: Any) -> Any:
    return np.full(array.size, -np.inf) if array.dtype.kind == "f" else np.full(array.size, (1 << 63) - 1)


WRONG: tuple[Callable[[Any], Any], ...] = (
    lambda array: array[:-1],
    lambda array: np.concatenate([array, array[:1]]),
    lambda array: np.repeat(array, 10_000),
    of_another_kind,
    out_of_range,
    infinite,
)


@every_aspect
@pytest.mark.parametrize("wrong", WRONG)
def test_shape_range_and_finiteness_are_checked_before_anything_else(
    aspect: Aspect, name: str, wrong: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(self: Aspect, arrays: Any) -> None:
        pytest.fail("numbers that are not even plausible were looked at")

    wire = worlds()[name].fill().to_wire()
    schema = worlds()[name].profile.schema
    for key in aspect.arrays(schema):
        if key in (sent := arrays_in(wire)):
            bad = with_arrays(wire, **{key: wrong(sent[key])})
            with monkeypatch.context() as patch:
                for each in ASPECTS:
                    patch.setattr(type(each), "check", reached)
                with pytest.raises(InsightsError):
                    Window.from_wire(bad, schema)


@pytest.fixture
def old_reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Aspect | None], None]]:
    """Makes this process a reader that does not know an aspect, or again one that knows all."""

    def forget(aspect: Aspect | None) -> None:
        monkeypatch.setattr(schemas, "ASPECTS", tuple(known for known in ASPECTS if known is not aspect))
        schemas._arrays.cache_clear()
        schemas.owners.cache_clear()
        layout_of.cache_clear()

    yield forget
    forget(None)


@pytest.mark.parametrize(
    ("aspect", "name"),
    [pair for pair in shown() if pair[0].name != "counts"],  # no reader was ever without them
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_an_old_reader_keeps_what_a_new_writer_adds(
    aspect: Aspect, name: str, old_reader: Callable[[Aspect | None], None]
) -> None:
    world = worlds()[name]
    one, other = world.fill(slice(0, 50)), world.fill(slice(50, None))
    schema, sent = one.schema, [one.to_bytes(), other.to_bytes()]
    old_reader(aspect)
    first, second = (Window.from_bytes(data, schema) for data in sent)
    assert set(first.unknown) <= set(aspect.arrays(schema)) and first.unknown
    stored = first.merge(second).to_bytes()
    old_reader(None)
    read, expected = Window.from_bytes(stored, schema), one.merge(other)
    assert read.unknown == {}
    assert all(same(array, expected.arrays[key]) for key, array in world.own(aspect, read).items())


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("name", worlds())
def test_coarsening_keeps_counts_and_commutes_with_merging(name: str, level: int) -> None:
    world = worlds()[name]
    one, other = world.fill(slice(0, 50)), world.fill(slice(50, None))
    levels = {histogram.name: level for histogram in HISTOGRAMS if histogram.rows(world.profile.schema)}
    coarse = coarsen(one, levels).merge(coarsen(other, levels))
    whole = one.merge(other)
    assert all(
        np.array_equal(coarse.arrays[key], array) for key, array in coarsen(whole, levels).arrays.items()
        if array.dtype.kind == "i"
    )  # fmt: skip
    for histogram in levels:
        assert np.array_equal(known_at(coarse, histogram, level), known_at(whole, histogram, level))
        assert known_at(coarse, histogram, 3).sum() == whole.arrays[histogram].sum() > 0
    assert Window.from_wire(coarse.to_wire(), whole.schema) == coarse
