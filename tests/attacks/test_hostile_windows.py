"""Attacks through the broker: what a device sends can hurt nobody but itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest

from cloud_hub.delivery import judge
from edgeloop.insights import Window
from edgeloop.protocol import Insights, decode
from tests.doubles.wired import with_arrays
from tests.unit.hub.kit import SCHEMA, TOPICS, Pipeline, envelope, window


@pytest.fixture
def hub(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


def honest_still_counts(hub: Pipeline) -> None:
    hub.send("honest", envelope("honest", 1))
    hub.work()
    assert hub.devices.get("honest").totals["predictions"] == 3
    assert hub.predictions == sum(device.totals["predictions"] for device in hub.devices.all())
    for _, merged in hub.insights.range("stable"):
        assert all(np.isfinite(array).all() for array in merged.arrays.values())
        assert all(merged.arrays[name].min(initial=0) >= 0 for name in ("counts", "classes", "confusion"))


def sent(**arrays: Any) -> bytes:
    return Insights("evil", 1, 1, 1, 1, with_arrays(window().to_wire(), **arrays), "stable").to_bytes()


COUNTS = {
    "beyond what a device can count": [2**62, 0, 0, 0, 0],
    "too short": [1],
    "too long": [1] * 1000,
    "sums": [1.0] * 5,
}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_absurd_counts(hub: Pipeline, counts: Any) -> None:
    hub.send("evil", sent(counts=counts))
    hub.work()
    assert hub.predictions == 0 and hub.quarantine.counts() == {"window": 1}
    honest_still_counts(hub)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308])
def test_sums_that_would_poison_every_later_sum(hub: Pipeline, value: float) -> None:
    name, spec = next((name, spec) for name, spec in SCHEMA.arrays.items() if spec.dtype == "float64")
    hub.send("evil", sent(**{name: np.full(spec.size, value)}))
    hub.work()
    assert hub.predictions == 0 and hub.quarantine.counts() == {"window": 1}
    honest_still_counts(hub)


@pytest.mark.parametrize("key", ["release", "variant", "provider", "start", "end", "layout", "counts", "sums"])
@pytest.mark.parametrize("value", [None, [], {}, "x" * 5000, 10**18, -1e300, b"\x00", True], ids=repr)
def test_fields_of_a_wrong_kind(hub: Pipeline, key: str, value: Any) -> None:
    wire = {**window().to_wire(), key: value}
    hub.send("evil", Insights("evil", 1, 1, 1, 1, wire, "stable").to_bytes())
    hub.work()
    assert sum(hub.quarantine.counts().values()) + hub.devices.get("evil").totals["windows"] == 1
    honest_still_counts(hub)


def test_a_window_of_another_release_under_the_name_of_this_one(hub: Pipeline) -> None:
    other = type(SCHEMA)(classes=5, features=9, inputs=2, projections=2, bins=5)
    content = Window.zero(other, window().release, "v", "p", 1.0, 2.0)
    content.arrays["counts"][0] = 1
    content.arrays["classes"][4] = 1
    hub.send("evil", envelope("evil", 1, content=content))
    hub.work()
    assert hub.predictions == 0
    honest_still_counts(hub)


def test_a_deep_and_a_wide_payload(hub: Pipeline) -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    for payload in (
        cbor2.dumps({"v": 1, "window": deep}),
        cbor2.dumps({"v": 1, "window": list(range(100_000))}),
        cbor2.dumps({"v": 1, "window": b"x" * (2 << 20)}),
        b"\xbf" * 1000,
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    ):
        hub.send("evil", payload)
    hub.work()
    assert hub.quarantine.counts() == {"malformed": 5}
    honest_still_counts(hub)


def test_numbers_from_the_end_of_the_scale(hub: Pipeline) -> None:
    last = 2**63 - 1
    hub.send("evil", envelope("evil", last, base=last))
    hub.send("evil", envelope("evil", last, base=last, epoch=last))
    hub.send("evil", envelope("evil", 1, last, epoch=2, content=window(release="sha256:" + "f" * 64)))
    hub.work()
    assert len(hub.sent.acks("evil")[-1].refused) <= 1000
    honest_still_counts(hub)
    assert judge(last, 1, 1, 1).action == "duplicate"


def test_someone_elses_name(hub: Pipeline) -> None:
    """A device that may write under its own topic only cannot count for another one."""
    hub.send("evil", envelope("honest", 1))
    hub.work()
    assert hub.quarantine.counts() == {"wrong-device": 1}
    honest_still_counts(hub)


def test_a_flood_leaves_room_for_the_others(tmp_path: Path) -> None:
    hub = Pipeline(tmp_path, queue=128)
    for number in range(10_000):
        hub.send("evil", envelope("evil", 1) if number % 2 else b"\xff")
    honest_still_counts(hub)
    assert hub.ingest.totals["dropped"] > 9000


@pytest.mark.parametrize("seed", range(5))
def test_mutated_envelopes_never_stop_the_pipeline(hub: Pipeline, seed: int) -> None:
    chance, valid = random.Random(seed), envelope("evil", 1)
    for _ in range(120):
        data = bytearray(valid)
        for _ in range(chance.randrange(1, 4)):
            match chance.randrange(3):
                case 0:
                    data[chance.randrange(len(data))] = chance.randrange(256)
                case 1:
                    del data[chance.randrange(len(data)) :][: chance.randrange(1, 9)]
                case _:
                    at = chance.randrange(len(data))
                    data[at:at] = chance.randbytes(chance.randrange(1, 9))
        hub.send("evil", bytes(data))
        hub.work()
    assert "internal" not in hub.quarantine.counts()
    honest_still_counts(hub)


def test_reports_and_presence_are_read_with_the_same_care(hub: Pipeline) -> None:
    for kind in ("presence", "reported"):
        for payload in (b"", b"\xa0", envelope("evil", 1), cbor2.dumps({"v": 1, "device": "evil", "channel": 7})):
            hub.send("evil", payload, kind)
            hub.work()
    assert hub.quarantine.counts() == {"malformed": 8}
    honest_still_counts(hub)


def test_the_hubs_own_topics_are_not_read_back(hub: Pipeline) -> None:
    for topic in (TOPICS.ack("evil"), TOPICS.desired("evil"), TOPICS.channel("stable"), TOPICS.answers("evil")):
        hub.ingest.submit(topic, envelope("evil", 1))
    assert len(hub.ingest.inbox) == 0
    honest_still_counts(hub)


def test_what_is_kept_of_an_unknown_field_is_bounded(hub: Pipeline) -> None:
    wire = {**window().to_wire(), "future": "x" * 4000}
    for number in range(1, 30):
        hub.send("evil", Insights("evil", 1, number, number, 1, {**wire, f"k{number}": 1}, "stable").to_bytes())
    hub.work()
    ((_, merged),) = hub.insights.range("stable")
    assert len(decode(merged.to_bytes(), 1 << 20)) < 40
    honest_still_counts(hub)
