from __future__ import annotations

import contextlib
import hashlib
import math
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.protocol import (
    Ack,
    Answers,
    ChannelDocument,
    Desired,
    Insights,
    Presence,
    ProtocolError,
    ReleaseRef,
    Reported,
    RolloutRef,
    UpdateReport,
    decode,
    encode,
    position,
)
from edgeloop.protocol.parts import Message

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64

EXAMPLES: list[Message] = [
    Presence("dev-1", True, 7, "0.1.0"),
    Reported(
        device="dev-1",
        channel="stable",
        release=A,
        previous=None,
        update=UpdateReport(B, "rolled_back", "golden cases differ", 2, "r-1"),
        variant="cpu-int8",
        provider="CPUExecutionProvider",
        placement={"CPUExecutionProvider": 12},
        health={"outbox_rows": 3, "disk_free": 1.5e9},
        unclean_restarts=1,
        ledger={"predictions": 10, "windows": 2},
        clock=12.0,
        serial=4,
        mono=99,
        epoch=7,
    ),
    Insights("dev-1", 7, 3, 5, 3, {"counts": [1, b"\x01"]}, "stable"),
    Ack(7, 5, (4,)),
    Desired("night-shift", A, {"escalate": False}),
    ChannelDocument("stable", 9, ReleaseRef(A, "digits", "1", 900), None, "http://127.0.0.1:1"),
    ChannelDocument("stable", 9, None, RolloutRef("r-1", ReleaseRef(B, "digits", "2", 901), 0.25)),
    ChannelDocument("stable", 9, policy={"insights": {"min_group": 5}}),
    Answers((("id-1", 3), ("id-2", "three"))),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_every_message_survives_a_round_trip(message: Message) -> None:
    assert type(message).from_bytes(message.to_bytes()) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_unknown_fields_survive_a_round_trip(message: Message) -> None:
    future = encode({**decode(message.to_bytes()), "new_in_2": {"a": [1]}})
    read = type(message).from_bytes(future)
    assert read.extra == {"new_in_2": {"a": [1]}}
    assert decode(read.to_bytes()) == decode(future)


def test_unknown_fields_of_nested_parts_survive_too() -> None:
    document = decode(EXAMPLES[6].to_bytes())
    document["rollout"]["candidate"]["signed_by"] = "x"
    document["rollout"]["paused"] = True
    assert decode(ChannelDocument.from_bytes(encode(document)).to_bytes()) == document


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_field_of_a_wrong_type_is_refused(message: Message) -> None:
    fields = decode(message.to_bytes())
    for name in fields:
        for wrong in (object, [[1]], -1, "x" * 5000, 1.5, True, {"a": []}):
            changed = {**fields, name: wrong}
            if wrong is object:
                del changed[name]
            try:
                read = type(message).from_bytes(cbor2.dumps({**changed, "v": 1}))
            except ProtocolError as error:
                assert name in str(error)  # the message names the field
            else:
                read.to_bytes()  # what was read can be written


@given(st.binary(max_size=100))
def test_any_bytes_are_either_a_message_or_a_protocol_error(data: bytes) -> None:
    for example in EXAMPLES:
        with contextlib.suppress(ProtocolError):
            type(example).from_bytes(data)


@pytest.mark.parametrize(
    "message",
    [
        Presence("a/b", True, 0, ""),
        Ack(0, 1),
        Ack(1, -1),
        Insights("d", 1, 1, 1, 1, {"x": float("nan")}, "c"),
        Desired(pin="sha256:zz"),
        RolloutRef("r", ReleaseRef(A, "n", "1", 1), 1.1),
        ReleaseRef(A, "n", "1", 0),
        Presence("d", True, True, ""),
    ],
)
def test_a_message_that_breaks_a_rule_is_not_written(message: Any) -> None:
    with pytest.raises(ProtocolError):
        message.to_bytes() if isinstance(message, Message) else message.to_wire()


def test_a_state_from_a_newer_agent_is_kept() -> None:
    assert UpdateReport.from_wire({"release": None, "state": "warming"}).state == "warming"


def test_insights_may_be_larger_than_other_messages() -> None:
    window = {"head": bytes(2 << 20)}
    assert Insights.from_bytes(Insights("d", 1, 1, 1, 1, window, "c").to_bytes()).window == window
    with pytest.raises(ProtocolError, match="bytes"):
        Desired(policy=window).to_bytes()


def test_position_is_the_digest_as_a_fraction() -> None:
    digest = hashlib.sha256(b"rollout-1/dev-7").digest()
    assert position("rollout-1", "dev-7") == pytest.approx(int.from_bytes(digest, "big") / 2**256, abs=2**-53)
    # Fixed for ever: devices and hubs of different versions have to agree.
    assert position("rollout-1", "dev-7") == 0.7997830058376628


def test_position_is_below_one_and_spreads_a_fleet_evenly() -> None:
    places = [position("r", f"device-{i}") for i in range(4000)]
    assert all(0 <= place < 1 for place in places)
    assert abs(sum(place < 0.25 for place in places) / 4000 - 0.25) < 0.03


def test_widening_a_rollout_keeps_those_who_had_the_candidate() -> None:
    current, candidate = ReleaseRef(A, "n", "1", 1), ReleaseRef(B, "n", "2", 1)
    devices = [f"d{i}" for i in range(200)]

    def takers(fraction: float) -> set[str]:
        document = ChannelDocument("c", 1, current, RolloutRef("r", candidate, fraction))
        return {device for device in devices if document.release_for(device) is candidate}

    assert takers(0.0) == set()
    assert takers(0.3) < takers(0.6) < takers(1.0) == set(devices)
    assert ChannelDocument("c", 1, current, None).release_for("d1") is current
    assert ChannelDocument("c", 1).release_for("d1") is None


USUAL: dict[str, Any] = {
    "v": 1,
    "device": "dev-1",
    "epoch": 7,
    "first": 3,
    "last": 5,
    "base": 3,
    "channel": "stable",
    "window": {"release": A, "start": 1.0, "end": 2.0, "counts": b"\x01"},
}
ODD: list[Any] = [
    *(
        0,
        1,
        2,
        -1,
        2**63 - 1,
        2**63,
        2**64,
        True,
        None,
        1.0,
        math.nan,
        math.inf,
        "",
        "dev-1",
        "a b",
        "ü",
        "a" * 65,
        b"a",
    ),
    *([], {}, {"a": math.nan}, {"a": math.inf, "b": -math.inf}, {"a": 1e308, "b": 1e308}, {"a": True}, {"a": None}),
    *(
        {"a": {"b": 2**63}},
        {"a": [math.nan]},
        {"k" * 33: 1.0},
        {"k" * 129: b""},
        {1: 2.0},
        {b"a": 2.0},
        {"ü" * 64: 1.0},
    ),
    {str(n): 1.0 for n in range(40)},
]


def read(function: Any, data: bytes) -> Any:
    try:
        return function(data)
    except ProtocolError as error:
        return str(error)


@given(st.sampled_from([*USUAL, "more"]), st.sampled_from(ODD) | st.none(), st.booleans())
def test_a_glance_at_a_window_finds_what_a_look_at_each_field_finds(name: str, odd: Any, left_out: bool) -> None:
    value = {key: USUAL[key] for key in USUAL if key != name} if left_out else {**USUAL, name: odd}
    data = cbor2.dumps(value)
    slowly = read(lambda data: Insights.from_wire(decode(data, Insights.max_bytes)), data)
    assert read(Insights.from_bytes, data) == slowly
    assert isinstance(read(Insights.from_bytes, cbor2.dumps(USUAL)), Insights)


@given(st.integers(0, 400), st.integers(0, 255))
def test_one_changed_byte_of_a_window_is_seen_at_a_glance(at: int, byte: int) -> None:
    data = bytearray(cbor2.dumps(USUAL))
    data[at % len(data)] = byte
    slowly = read(lambda data: Insights.from_wire(decode(data, Insights.max_bytes)), bytes(data))
    assert read(Insights.from_bytes, bytes(data)) == slowly
