"""The wire form: small, strictly checked, and tolerant of newer senders."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.insights import InsightsError, Window, WindowSchema
from edgeloop.protocol.codec import decode, encode
from tests.doubles.wired import with_arrays
from tests.unit.insights.worlds import observed, profile, random_batch

SCHEMA = profile().schema
WINDOW = observed(random_batch(60, seed=2))


def wire(**arrays: Any) -> dict[str, Any]:
    """An honest window with some arrays replaced, or left out where None."""
    return with_arrays(WINDOW.to_wire(), **arrays)


def counts(name: str, **places: int) -> Any:
    """The array ``name`` of the honest window with some places (``_3=7``) changed."""
    changed = WINDOW.arrays[name].copy()
    for place, value in places.items():
        changed.flat[int(place[1:])] = value
    return changed


def floats(name: str, value: float, place: int = 0) -> Any:
    changed = WINDOW.arrays[name].copy()
    changed.flat[place] = value
    return changed


def test_a_round_trip_changes_nothing() -> None:
    assert Window.from_wire(WINDOW.to_wire(), SCHEMA) == WINDOW
    assert Window.from_bytes(WINDOW.to_bytes(), SCHEMA) == WINDOW


def test_it_passes_through_the_codec() -> None:
    assert Window.from_wire(decode(encode(WINDOW.to_wire())), SCHEMA) == WINDOW


def test_arrays_of_zeros_are_left_out() -> None:
    wire = Window.zero(SCHEMA).to_wire()
    assert (wire["layout"], wire["counts"], wire["sums"]) == ("", b"", b"")
    bare = {key: value for key, value in wire.items() if key not in ("layout", "counts", "sums")}
    assert Window.from_wire(bare, SCHEMA) == Window.zero(SCHEMA)


@pytest.mark.parametrize(("largest", "width"), [(1, 1), (127, 1), (128, 2), (65_535, 3), (1 << 33, 5)])
def test_a_count_takes_as_many_bytes_as_it_needs(largest: int, width: int) -> None:
    window = Window.zero(SCHEMA)
    window.arrays["counts"][0] = largest
    assert len(window.to_wire()["counts"]) == width + len(b"\0\4")
    assert Window.from_wire(window.to_wire(), SCHEMA).predictions == largest


def test_fields_of_a_newer_sender_are_kept() -> None:
    newer = {**wire(), "note": "hello", "more": {"a": [1, b"x"]}}
    window = Window.from_wire(newer, SCHEMA)
    assert window.extra == {"note": "hello", "more": {"a": [1, b"x"]}}
    assert window.to_wire() == newer
    assert Window.from_bytes(window.to_bytes(), SCHEMA) == window


def test_a_run_of_zeros_takes_a_few_bytes() -> None:
    window = Window.zero(SCHEMA)
    window.arrays["counts"][0] = 9
    window.arrays["latency"][[200, 203]] = 4, 5
    window.arrays["input_squares"][0] = 1.5
    sent = window.to_wire()
    assert sent["layout"] == f"counts:5 latency:462 input_squares={SCHEMA.inputs}"
    assert sent["counts"] == b"\t\0\xcc\x01\4\0\2\5\0\x82\2"
    assert sent["sums"] == struct.pack("<d", 1.5) + bytes(8 * (SCHEMA.inputs - 1))
    assert Window.from_wire(sent, SCHEMA).arrays["latency"].tolist() == window.arrays["latency"].tolist()


def test_a_window_of_a_clock_at_1970_is_believed() -> None:
    assert Window.from_wire({**wire(), "start": 30.0, "end": 10.0}, SCHEMA).end == 10.0


WRONG_FORM = {
    "not a map": [],
    "release not text": {**wire(), "release": 5},
    "release too long": {**wire(), "release": "x" * 200},
    "control characters": {**wire(), "variant": "a\nb"},
    "no time": {**wire(), "start": "now"},
    "time NaN": {**wire(), "start": float("nan")},
    "time infinite": {**wire(), "end": float("inf")},
    "time absurd": {**wire(), "end": 1e18},
    "many unknown fields": {**wire(), **{f"x{i}": i for i in range(20)}},
    "a large unknown field": {**wire(), "x": b"a" * 5000},
    "float array as counts": wire(feature_sum=np.ones(6, np.int64)),
    "counts as sums": wire(classes=np.ones(4)),
    "too short": wire(classes=np.ones(3, np.int64)),
    "too long": wire(feature_sum=np.ones(100)),
    "a layout of bytes": {**wire(), "layout": b""},
    "a layout of nothing": {**wire(), "layout": "counts"},
    "a layout with a gap": {**wire(), "layout": "counts:5  classes:4"},
    "a layout of negative sizes": {**wire(), "layout": "counts:-5"},
    "a layout that says a name twice": {**wire(), "layout": "counts:5 counts:5"},
    "a layout without end": {**wire(), "layout": " ".join(f"a{number}:1" for number in range(5000))},
    "another order than the counts": {**wire(), "layout": " ".join(reversed(wire()["layout"].split()))},
    "no counts": {**wire(), "counts": b""},
    "counts as text": {**wire(), "counts": "abcd"},
    "counts that end in a count": {**wire(), "counts": wire()["counts"][:-1] + b"\x81"},
    "counts that end in a run": {**wire(), "counts": wire()["counts"][:-1] + b"\0"},
    "a run of none": {**wire(), "counts": b"\0\0" + wire()["counts"]},
    "a run of billions": {**wire(), "counts": b"\0" + b"\xff" * 8 + b"\x7f" + wire()["counts"]},
    "a count of ten bytes": {**wire(), "counts": b"\xff" * 9 + b"\x01" + wire()["counts"][1:]},
    "one byte of sums too few": {**wire(), "sums": wire()["sums"][:-1]},
    "sums as a list": {**wire(), "sums": [1.0]},
    "a segment of another type": {**wire(), "segment": 5},
    "a segment too long": {**wire(), "segment": "x" * 65},
    "a segment of control characters": {**wire(), "segment": "a\0b"},
}


@pytest.mark.parametrize("bad", WRONG_FORM.values(), ids=WRONG_FORM.keys())
def test_a_wrong_form_is_refused(bad: Any) -> None:
    with pytest.raises(InsightsError):
        Window.from_wire(bad, SCHEMA)


CONTRADICTIONS = {
    "absurd count": wire(counts=counts("counts", _0=1 << 50)),
    "more on all levels together than predictions": wire(**{"confidence@1": [1, 0, 0, 0, 0]}),
    "a coarser level of its own size": wire(**{"inputs@3": [1] + [0] * 15}),
    "more queues than predictions": wire(latency_queue=[0] * 7 + [61] + [0] * 454),
    "more classes than predictions": wire(classes=counts("classes", _0=1000)),
    "more rows not finite than predictions": wire(counts=counts("counts", _4=1000)),
    "confidence without classes": wire(confidence=counts("confidence", _0=50)),
    "an input histogram of its own size": wire(inputs=counts("inputs", _0=50)),
    "projections of different sizes": wire(projections=counts("projections", _3=0, _13=49)),
    "more latencies than predictions": wire(latency=counts("latency", _9=1000)),
    "more in the matrix than labels": wire(confusion=counts("confusion", _0=1000)),
    "more head labels than labels": wire(head_fit_count=counts("head_fit_count", _0=1000)),
    "head sums without labels": wire(head_fit_count=None),
    "NaN in a sum": wire(feature_sum=floats("feature_sum", np.nan)),
    "infinity in a sum": wire(head_fit_gram=floats("head_fit_gram", np.inf)),
    "an absurd sum": wire(feature_sum=floats("feature_sum", 1e200)),
    "a negative square": wire(feature_squares=floats("feature_squares", -1.0)),
    "a sum beyond its squares": wire(input_sum=floats("input_sum", 1e6)),
    "a class sum beyond the Gram matrix": wire(head_fit_sum=floats("head_fit_sum", 1e6)),
    "a negative Gram diagonal": wire(head_fit_gram=floats("head_fit_gram", -1.0)),
    "an impossible Gram entry": wire(head_fit_gram=floats("head_fit_gram", 1e9, place=1)),
    "absurd health": wire(health_sum=floats("health_sum", 1e300)),
}


@pytest.mark.parametrize("bad", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_numbers_that_contradict_one_another_are_refused(bad: Any) -> None:
    with pytest.raises(InsightsError):
        Window.from_wire(bad, SCHEMA)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_from_a_database_give_a_window_or_a_clear_error(data: bytes) -> None:
    try:
        Window.from_bytes(data, SCHEMA)
    except InsightsError as error:
        assert str(error)


@given(st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_one_changed_byte_gives_a_valid_window_or_a_clear_error(place: int, value: int) -> None:
    data = bytearray(WINDOW.to_bytes())
    data[place % len(data)] = value
    try:
        window = Window.from_bytes(bytes(data), SCHEMA)
    except InsightsError:
        return
    assert all(np.isfinite(array).all() for array in window.arrays.values())
    assert all(array.min(initial=0) >= 0 for array in window.arrays.values() if array.dtype.kind == "i")


@pytest.mark.parametrize("layout", ["counts:5 confusion:1000000", "future:999999999", "future=999999999"])
@pytest.mark.parametrize("counts", [b"", b"\0" + b"\xff" * 8 + b"\x7f", b"\0\x85\x89\x7a"])
def test_nothing_is_allocated_from_a_size_that_is_announced(layout: str, counts: bytes) -> None:
    large = WindowSchema(1000, 1000, 8, 8)
    tracemalloc.start()
    with pytest.raises(InsightsError):
        Window.from_wire({"layout": layout, "counts": counts, "sums": b""}, large)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_merged_window_may_hold_more_than_a_device_may_send() -> None:
    window = Window.zero(SCHEMA, "sha256:a")
    window.arrays["counts"][0] = 1 << 42
    for _ in range(5):
        window = window.merge(window)
    assert Window.from_bytes(window.to_bytes(), SCHEMA) == window
    with pytest.raises(InsightsError, match="no window can reach"):
        Window.from_wire(window.to_wire(), SCHEMA)


def test_head_statistics_that_no_message_can_carry_are_not_kept() -> None:
    schema = WindowSchema(1000, 4096, 8, 8)
    assert schema.arrays["head_fit_gram"].size == 0
    assert WindowSchema(10, 1280, 8, 8).arrays["head_fit_gram"].size == 1280 * 1281 // 2


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"classes": 10**9}, {"features": -1}, {"bins": 1}, {"inputs": 2.0}])
def test_sizes_that_no_model_has(wrong: dict[str, Any]) -> None:
    with pytest.raises(InsightsError, match=next(iter(wrong))):
        WindowSchema(**{"classes": 3, "features": 4, "inputs": 2, "projections": 2, **wrong})
