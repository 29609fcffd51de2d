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
from edgeloop.insights.levels import known_at
from edgeloop.insights.wire import MAX_DEVICE_COUNT
from tests.conformance.aspects.kit import digests, same, shown, worlds
from tests.conformance.aspects.write_goldens import GOLDENS

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
    wire = window.to_wire()["arrays"]
    for key, spec in specs.items():
        value = wire.get(key, b"")
        assert len(value if isinstance(value, bytes) else value[1]) <= 8 * spec.size


def truncated(value: Any) -> Any:
    if isinstance(value, bytes):
        return value[:-1]
    width, data, *trimmed = value
    return [width, data, trimmed[0], trimmed[1] - 1] if trimmed else [width, data[:-width]]


def lengthened(value: Any) -> Any:
    return value + bytes(8) if isinstance(value, bytes) else [value[0], value[1] + bytes(value[0] * 10_000), *value[2:]]


def out_of_range(value: Any) -> Any:
    if isinstance(value, bytes):
        return np.full(len(value) // 8, np.nan).tobytes()
    return [8, np.full(len(value[1]) // value[0], MAX_DEVICE_COUNT + 1, "<u8").tobytes(), *value[2:]]


def infinite(value: Any) -> Any:
    if isinstance(value, bytes):
        return np.full(len(value) // 8, -np.inf).tobytes()
    return [8, np.full(len(value[1]) // value[0], -1, "<i8").tobytes(), *value[2:]]


WRONG: tuple[Callable[[Any], Any], ...] = (
    truncated,
    lengthened,
    out_of_range,
    infinite,
    str,
    lambda value: 1e30,
    lambda value: None,
    lambda value: [1, value],
    lambda value: {"a": value},
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
        if key in wire["arrays"]:
            bad = {**wire, "arrays": {**wire["arrays"], key: wrong(wire["arrays"][key])}}
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
