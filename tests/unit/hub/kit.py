"""Windows, envelopes and a pipeline for tests: real records, real windows, no network."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud_hub.devices import Devices
from cloud_hub.ingest import Ingest
from cloud_hub.insights_store import InsightStore
from cloud_hub.quarantine import Quarantine
from edgeloop.insights import Observer, Profile, Window, WindowSchema
from edgeloop.protocol import Ack, Insights, Topics
from tests.doubles.new_records import new_records


def _rows(classes: Sequence[int], seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Inputs [N, 8], probabilities [N, 3] with these numbers of each class on top, features [N, 4]."""
    chance = np.random.default_rng(seed)
    top = np.repeat(np.arange(3), classes)
    probabilities = chance.uniform(0.0, 0.3, (len(top), 3))
    probabilities[np.arange(len(top)), top] += 1.0
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return chance.normal(size=(len(top), 8)).astype(np.float32), probabilities, chance.normal(size=(len(top), 4))


PROFILE = Profile.fit(*_rows((30, 30, 30)), bins=5, projections=2)
SCHEMA = PROFILE.schema
RELEASE = "sha256:" + "a" * 64
CHANNEL = "stable"
TOPICS = Topics("test")


def window(classes: tuple[int, ...] = (1, 2, 0), *, end: float = 1000.0, release: str = RELEASE) -> Window:
    """A window that predicted each class so many times."""
    made = Window.zero(SCHEMA, release, "cpu-fp32", "CPUExecutionProvider", end - 10, end)
    if any(classes):
        Observer(PROFILE).observe(made, *_rows(classes), np.full(sum(classes), 1_000_000))
    return made


def epoch_of(device: str) -> int:
    """The first epoch of a device; no two have the same one."""
    return zlib.crc32(device.encode()) + 1


def envelope(
    device: str,
    first: int,
    last: int | None = None,
    base: int = 1,
    *,
    epoch: int | None = None,
    channel: str = CHANNEL,
    content: Window | None = None,
) -> bytes:
    """An insights payload."""
    sent = window() if content is None else content
    message = Insights(
        device,
        epoch_of(device) if epoch is None else epoch,
        first,
        first if last is None else last,
        base,
        sent.to_wire(),
        channel,
    )
    return message.to_bytes()


@dataclass
class Published:
    """Records what the hub sends, by topic."""

    messages: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        self.messages.append((topic, payload, retain))
        return True

    def acks(self, device: str) -> list[Ack]:
        return [Ack.from_bytes(payload) for topic, payload, _ in self.messages if topic == TOPICS.ack(device)]


class Clock:
    """A clock that tests turn."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Pipeline:
    """A hub's ingest over real records."""

    def __init__(
        self,
        folder: Path,
        *,
        batch: int = 256,
        queue: int = 4096,
        interval_s: float = 60.0,
        schema_of: Callable[[str], WindowSchema | None] = lambda digest: SCHEMA if digest == RELEASE else None,
    ) -> None:
        self.clock, self.sent = Clock(), Published()
        self.db = new_records(folder)
        self.devices = Devices(self.db, TOPICS, self.sent, clock=self.clock)
        self.insights = InsightStore(self.db, schema_of, interval_s=interval_s, clock=self.clock)
        self.quarantine = Quarantine(self.db, rows_each=5)
        self.ingest = Ingest(
            self.db,
            self.devices,
            self.insights,
            self.quarantine,
            TOPICS,
            self.sent,
            known_channel=lambda name: name == CHANNEL,
            queue=queue,
            batch=batch,
            clock=self.clock,
        )

    def send(self, device: str, payload: bytes, kind: str = "insights") -> None:
        """As the network's thread does."""
        self.ingest.submit(TOPICS.device(kind, device), payload)  # type: ignore[arg-type]  # one of the kinds

    def work(self) -> None:
        """Everything that waits."""
        while len(self.ingest.inbox):
            assert self.ingest.step(0.0)

    @property
    def predictions(self) -> int:
        return int(self.insights.totals()["predictions"])


class Sender:
    """A device with its outbox and its ledger, without the network."""

    def __init__(self, device: str, seed: int = 0) -> None:
        self.device = device
        self.random = np.random.default_rng(seed)
        self.outbox: dict[int, Window] = {}
        self.next = 1
        self.ledger: Counter[str] = Counter()
        self.classes = [0, 0, 0]

    def close(self, *, end: float = 1000.0) -> None:
        """Close one window: it is in the ledger and the outbox."""
        classes = tuple(int(n) for n in self.random.integers(0, 50, 3))
        self.outbox[self.next] = window(classes, end=end)
        self.next += 1
        self.ledger["predictions"] += sum(classes)
        self.classes = [a + b for a, b in zip(self.classes, classes, strict=True)]

    def envelopes(self, most: int = 16) -> list[bytes]:
        """What it sends now, lowest first."""
        base = min(self.outbox, default=self.next)
        return [
            envelope(self.device, number, base=base, content=content)
            for number, content in sorted(self.outbox.items())[:most]
        ]

    def acknowledged(self, ack: Ack) -> None:
        for number in [number for number in self.outbox if number <= ack.last]:
            del self.outbox[number]
