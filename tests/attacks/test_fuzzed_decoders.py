"""Every decoder of bytes from the network meets bytes that went wrong: only the documented errors leave it.

The corpus is deterministic: valid messages, each with one to four changes. `make test` reads a part of it, `make soak`
all of it.
"""

from __future__ import annotations

import os
import random
import resource
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.insights import InsightsError, Profile, Window
from edgeloop.insights.columns import Columns
from edgeloop.protocol import (
    Ack,
    Answers,
    ChannelDocument,
    Desired,
    Escalation,
    Insights,
    Presence,
    ProtocolError,
    ReleaseRef,
    Reported,
    RolloutRef,
    Sample,
    SignedChannel,
    SignedDesired,
    TeacherAnswer,
    UpdateReport,
    decode,
)
from edgeloop.protocol.inputs import Tensor
from tests.unit.hub.kit import PROFILE, RELEASE, SCHEMA, envelope, window

SOAK = bool(os.environ.get("EDGELOOP_SOAK"))
#: Messages for each decoder: 14 decoders read 140,000 in all.
MESSAGES = 10_000 if SOAK else 1_200
#: Files are read from the disk.
FILES = 4_000 if SOAK else 200
#: What a decoder may keep over all of a corpus, bytes.
MOST_GROWTH = 64 << 20

REF = ReleaseRef(RELEASE, "digits", "1", 4096)
TENSOR = Tensor.of(np.arange(64, dtype=np.float32))
CHANNEL = ChannelDocument("stable", 9, REF, RolloutRef("r1", REF, 0.25), "http://hub:8800")
VALID: dict[str, bytes] = {
    "presence": Presence("a", True, 7, "0.1.0").to_bytes(),
    "reported": Reported(
        "a", "stable", RELEASE, update=UpdateReport(RELEASE, "committed", "well", 1, "r1"), placement={"CPU": 12},
        health={"rss": 1.5, "words": ["x", None]}, ledger={"predictions": 12, "last_seq": 3}, clock=1.8e9,
    ).to_bytes(),
    "insights": envelope("a", 1, 40, content=window((20, 10, 300))),
    "ack": Ack(5, 70, (3, 4)).to_bytes(),
    "desired": SignedDesired(Desired("stable", RELEASE, {"observe": True}).to_bytes(), b"s" * 64).to_bytes(),
    "channel": SignedChannel(CHANNEL.to_bytes(), {"timestamp.json": b"{}"}).to_bytes(),
    "answers": Answers(
        (("id-1", 3), ("id-2", "seven")), (TeacherAnswer("id-3", 1, "seven", 0.9, "large", 12.5),)
    ).to_bytes(),
    "escalations": Escalation(
        "a", "stable", RELEASE, "id-1", "input", {"x": TENSOR}, 0.25, 3, 0.6, wait=True, deadline_ms=1000
    ).to_bytes(),
    "samples": Sample(
        "a", 7, 1, "stable", RELEASE, "id-1", "input", {"x": TENSOR}, "random", 0.01, 3, 0.6, 1.8e9, label="seven"
    ).to_bytes(),
}  # fmt: skip
READERS: dict[str, Callable[[bytes], object]] = {
    "presence": Presence.from_bytes,
    "reported": Reported.from_bytes,
    "insights": Insights.from_bytes,
    "ack": Ack.from_bytes,
    "desired": lambda data: Desired.from_bytes(SignedDesired.from_bytes(data).document),
    "channel": lambda data: ChannelDocument.from_bytes(SignedChannel.from_bytes(data).document),
    "answers": Answers.from_bytes,
    "escalations": lambda data: [tensor.row() for tensor in Escalation.from_bytes(data).tensors.values()],
    "samples": lambda data: [tensor.row() for tensor in Sample.from_bytes(data).tensors.values()],
}


def mutated(data: bytes, chance: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """One to four changes: a byte, a cut, noise, a repetition, a piece of another message, an absurd length."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(changed) + 1)
        length = chance.choice([1, 2, 4, 9, 40])
        match chance.randrange(7):
            case 0 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 1 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = chance.randbytes(length)
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5 if others:
                other = chance.choice(others)
                start = chance.randrange(len(other))
                changed[at : at + length] = other[start : start + length]
            case _:
                head = bytes([chance.choice([0x1B, 0x3B, 0x5B, 0x7B, 0x9B, 0xBB, 0xDB, 0x5F, 0xBF, 0xFB])])
                absurd = [b"\xff" * 8, b"\x00" * 4 + b"\xff" * 4, chance.randbytes(8)]
                changed[at : at + 9] = head + chance.choice(absurd)
    return bytes(changed)


def corpus(data: bytes, seed: int, count: int) -> list[bytes]:
    chance, others = random.Random(seed), list(VALID.values())
    return [mutated(data, chance, others) for _ in range(count)]


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("kind", READERS)
def test_messages(kind: str) -> None:
    read, before, refused = READERS[kind], memory(), 0
    for data in corpus(VALID[kind], len(kind), MESSAGES):
        try:
            read(data)
        except ProtocolError as error:
            assert 0 < len(str(error)) < 1000
            refused += 1
    assert refused > MESSAGES // 2
    assert memory() - before < MOST_GROWTH


def test_the_codec_reads_back_what_it_accepts() -> None:
    """Whatever is accepted is plain: no value in it comes from a tag, and each number is finite."""
    accepted = 0
    for data in corpus(VALID["reported"] + b"", 99, MESSAGES):
        try:
            value = decode(data)
        except ProtocolError:
            continue
        accepted += 1
        assert _plain(value)
    assert accepted


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and _plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    if type(value) is float:
        return bool(np.isfinite(value))
    return value is None or (type(value) is int and -(1 << 63) <= value < 1 << 63) or type(value) in (bytes, str, bool)


NO_ARRAYS: list[Any] = [None, 7, [], [1], b"", b"\0", b"\x80", "", "counts:5", "a:1 b=2", {"a": 1}, True]


def windows(count: int) -> list[Any]:
    """Windows whose arrays went wrong: every envelope around them can be read."""
    chance, wire, found = random.Random(5), window((20, 10, 300)).to_wire(), []
    for number in range(count):
        field = chance.choice(["layout", "counts", "counts", "sums"])
        changed: Any = wire[field]
        if number % 4 == 0:
            changed = chance.choice(NO_ARRAYS)
        elif field == "layout":
            changed = mutated(changed.encode(), chance).decode("latin-1")
        else:
            changed = mutated(changed, chance)
        fields = chance.choice([{}, {}, {"end": 1e308}, {"segment": "x" * 99}, {"future": [1] * 9}, {"variant": 5}])
        found.append({**wire, **fields, field: changed})
    return found


def test_windows_one_by_one_and_side_by_side() -> None:
    before, sent = memory(), windows(2 * MESSAGES)
    good: set[int] = set()
    for place, wire in enumerate(sent):
        try:
            Window.from_wire(wire, SCHEMA)
        except InsightsError:
            continue
        good.add(place)
    taken: set[int] = set()
    for start in range(0, len(sent), 500):
        columns = Columns(sent[start : start + 500], RELEASE, SCHEMA)
        taken |= {start + int(place) for place in columns.places}
    assert 0 < len(good) < len(sent)
    assert taken <= good, "nothing is counted side by side that would be refused alone"
    assert memory() - before < MOST_GROWTH


def test_stored_windows() -> None:
    data = window((20, 10, 300)).to_bytes()
    for damaged in corpus(data, 17, MESSAGES):
        try:
            Window.from_bytes(damaged, SCHEMA)
        except InsightsError:
            continue


@pytest.mark.parametrize("file", ["bins.safetensors", "reference.safetensors"])
def test_profile_files(tmp_path: Path, file: str) -> None:
    PROFILE.save(tmp_path)
    path = tmp_path / file
    data, before = path.read_bytes(), memory()
    for damaged in corpus(data, 23, FILES):
        path.write_bytes(damaged)
        try:
            Profile.load(tmp_path)
        except InsightsError:
            continue
    assert memory() - before < MOST_GROWTH


@pytest.mark.parametrize("head", [0x5B, 0x7B, 0x9B, 0xBB])
def test_what_is_announced_is_not_allocated(head: int) -> None:
    """A length of 2^40 bytes or items in a message of some bytes, at every depth that is read."""
    tracemalloc.start()
    try:
        for depth in range(9):
            data = b"\xa2\x61v\x01\x61x" + b"\x81" * depth + bytes([head]) + (1 << 40).to_bytes(8, "big") + b"x" * 40
            with pytest.raises(ProtocolError):
                decode(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
