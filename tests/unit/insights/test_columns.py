"""Many windows at once: the same sums and the same refusals as one by one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from edgeloop.insights import InsightsError, Observer, Profile, Window, coarsen
from edgeloop.insights.columns import Columns, rows_at_once
from edgeloop.insights.histograms import HISTOGRAM_ARRAYS
from tests.doubles.wired import with_arrays

RELEASE = "sha256:" + "c" * 64
random_numbers = np.random.default_rng(3)


def rows(count: int, seed: int) -> tuple[Any, Any, Any]:
    chance = np.random.default_rng(seed)
    return (
        chance.normal(size=(count, 8)).astype(np.float32),
        chance.dirichlet(np.ones(4), count),
        chance.normal(size=(count, 6)),
    )


PROFILE = Profile.fit(*rows(100, 0), bins=8, projections=3)
SCHEMA = PROFILE.schema


def window(seed: int, *, labels: bool = False, level: int = 0) -> Window:
    """One device's window: some are empty, some coarse, some have labels without features."""
    count = seed * 7 % 40
    made = Window.zero(SCHEMA, RELEASE, f"v{seed % 2}", "P", float(seed), float(seed) + 60.0)
    observer = Observer(PROFILE)
    if count:
        observer.observe(made, *rows(count, seed), np.full(count, 10_000 * (seed + 1)))
    if labels:
        classes = np.arange(10) % 4
        observer.feedback(made, None, classes, classes[::-1].copy(), np.zeros(10, bool))
    observer.error(made, seed)
    observer.health(made, rss_bytes=1e6 * seed)
    return coarsen(made, {"confidence": level, "inputs": level}) if level else made


def wires(count: int) -> list[dict[str, Any]]:
    return [window(seed, labels=seed % 3 == 0, level=seed % 4).to_wire() for seed in range(count)]


def one_by_one(sent: list[Any]) -> Window:
    total = Window.zero(SCHEMA)
    for wire in sent:
        total = total.merge(Window.from_wire(wire, SCHEMA))
    return total


def close(one: Window, other: Window) -> None:
    """Counts are the same; float64 sums to their last bits."""
    assert (one.release, one.variant, one.provider, one.start, one.end, one.segment) == (
        other.release,
        other.variant,
        other.provider,
        other.start,
        other.end,
        other.segment,
    )
    for name, spec in SCHEMA.arrays.items():
        if spec.dtype == "int64":
            assert np.array_equal(one.arrays[name], other.arrays[name]), name
        else:
            np.testing.assert_allclose(one.arrays[name], other.arrays[name], rtol=1e-12)


def test_the_sum_is_that_of_merging_one_after_the_other() -> None:
    sent = wires(60)
    columns = Columns(sent, RELEASE, SCHEMA)
    assert columns.odd == [] and len(columns) == 60
    close(columns.total(range(60), ""), one_by_one(sent))
    some = [3, 17, 4, 58]
    close(columns.total(some, ""), one_by_one([sent[place] for place in some]))
    assert columns.column("counts")[:, 0].tolist() == [Window.from_wire(wire, SCHEMA).predictions for wire in sent]


def test_groups_are_added_up_one_array_at_a_time() -> None:
    sent = wires(30)
    columns = Columns(sent, RELEASE, SCHEMA)
    groups = [[0, 5, 9], [1], [29, 2]]
    expected = [one_by_one([sent[place] for place in group]) for group in groups]
    for name in ("counts", "classes", "latency", *HISTOGRAM_ARRAYS):
        found = columns.sums(groups, name)
        assert found.tolist() == [window.arrays[name].tolist() for window in expected], name


#: -5 in 64 bits, as a writer without care would say it: seven bits a byte, ten bytes.
NEGATIVE = bytes([0x80 | (-5 >> 7 * place & 127) for place in range(9)]) + b"\x01"


def bad(change: Any) -> dict[str, Any]:
    wire = window(5).to_wire()
    change(wire)
    return wire


def array(name: str, values: Any) -> dict[str, Any]:
    return with_arrays(window(5).to_wire(), **{name: np.asarray(values)})


def raw(**fields: Any) -> dict[str, Any]:
    return window(5).to_wire() | fields


SENT = window(5).to_wire()
ODD: dict[str, Any] = {
    "no map": 7,
    "no arrays": {"release": RELEASE},
    "another field": bad(lambda wire: wire.update(future=1)),
    "another array": array("future", [1]),
    "head statistics": array("head_fit_count", [1, 0, 0, 0]),
    "a time of text": bad(lambda wire: wire.update(end="now")),
    "a time beyond time": bad(lambda wire: wire.update(end=1e30)),
    "a variant of bytes": bad(lambda wire: wire.update(variant=b"v")),
    "a variant of control characters": bad(lambda wire: wire.update(variant="a\nb")),
    "a long segment": bad(lambda wire: wire.update(segment="x" * 65)),
    "counts of floats": array("counts", [1.0] * 5),
    "too short": array("counts", [7, 0, 0, 0]),
    "too long": array("counts", [7, 0, 0, 0, 0, 0]),
    "an array twice": raw(layout=SENT["layout"] + " counts:5"),
    "half a count": raw(counts=SENT["counts"][:-1] + b"\x80"),
    "a count too many": raw(counts=SENT["counts"] + b"\x01"),
    "a count too few": raw(counts=SENT["counts"][:-1]),
    "half a sum": raw(sums=SENT["sums"][:-1]),
    "a sum too many": raw(sums=SENT["sums"] + bytes(8)),
    "counts of text": raw(counts="5"),
    "no layout": raw(layout="nothing at all"),
    "negative": raw(counts=NEGATIVE + SENT["counts"]),
    "absurd": array("counts", [2**50, 0, 0, 0, 0]),
    "infinite": array("feature_sum", np.full(6, np.inf)),
    "not a number": array("feature_squares", np.full(6, np.nan)),
    "10^30 of one device": array("feature_sum", np.full(6, 1e37)),
    "sums without squares": array("feature_sum", np.full(6, 1e6)),
    "more classes than predictions": array("counts", [5, 0, 0, 0, 0]),
    "rows that differ": array("projections", [*[1] * 8, *[2] * 8, *[1] * 8]),
    "an impossible temperature": array("health_sum", [0.0, 0.0, 1e9]),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_named_and_the_others_are_added_up(name: str) -> None:
    sent: list[Any] = wires(9)
    sent[4:4] = [ODD[name]]
    columns = Columns(sent, RELEASE, SCHEMA)
    assert columns.odd == [4]
    assert columns.places.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    close(columns.total(range(9), ""), one_by_one(wires(9)))


def test_nothing_is_taken_that_would_be_refused_alone() -> None:
    """Bytes of honest windows are changed at random; whatever is taken side by side is also taken one by one."""
    chance = random.Random(11)
    sent: list[Any] = []
    for wire in wires(40) * 8:
        field = chance.choice(["counts", "counts", "sums"])
        data = bytearray(wire[field])
        if data:
            data[chance.randrange(len(data))] = chance.choice([0, 1, 127, 255, chance.randrange(256)])
        sent.append({**wire, field: bytes(data)})
    columns = Columns(sent, RELEASE, SCHEMA)
    assert 0 < len(columns.odd) < len(sent), "some are refused, and some are not"
    close(columns.total(range(len(columns)), ""), one_by_one([sent[place] for place in columns.places]))
    for place in columns.odd:
        with pytest.raises(InsightsError):
            Window.from_wire(sent[place], SCHEMA)


def test_segments_are_kept_apart_by_the_caller_and_named() -> None:
    wire = window(3).to_wire() | {"segment": "line 2"}
    columns = Columns([wire], RELEASE, SCHEMA)
    assert columns.heads[0].segment == "line 2"
    assert columns.total([0], "line 2") == Window.from_wire(wire, SCHEMA)


def test_how_many_are_read_at_once_is_bounded_by_memory() -> None:
    assert rows_at_once(SCHEMA) > 100
    wide = type(SCHEMA)(classes=60_000, features=60_000, inputs=64, projections=256, bins=100)
    assert 1 <= rows_at_once(wide) < 500


def test_none_at_all() -> None:
    columns = Columns([], RELEASE, SCHEMA)
    assert (len(columns), columns.odd) == (0, [])
    assert columns.column("counts").shape == (0, 5)
