"""The hub is away for a whole day: the outbox keeps to its limit at every moment, and every count arrives afterwards.

The device's own parts, over a clock that the test turns; then the hub's own ingest, over a real database.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.observing.assembly import Observing
from edge_agent.observing.rows import ROW_OVERHEAD_BYTES
from edge_agent.observing.sender import Sender
from edge_agent.ports import FeedbackItem, LoadedRelease
from edgeloop.insights import Profile
from tests.doubles.days import Cable, TurnedClock
from tests.doubles.recording import record
from tests.unit.hub.kit import CHANNEL, Pipeline
from tests.unit.observing.doubles import digest

LIMIT = 256 << 10
DAY_S, STEP_S, WINDOW_S = 86_400, 600.0, 1800.0
CAMERAS = ("north", "south", "gate", "yard")
RELEASES = 3
CLASSES, FEATURES = 10, 64
COUNTED = ("predictions", "errors", "feedback", "escalations", "classes")


def _batch(rows: int, random: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    features = random.normal(size=(rows, FEATURES)).astype(np.float32)
    scores = random.dirichlet(np.ones(CLASSES), rows).astype(np.float32)
    return random.random((rows, 64), dtype=np.float32), {"scores": scores, "features": features}


def _profile() -> Profile:
    inputs, outputs = _batch(400, np.random.default_rng(0))
    return Profile.fit(inputs, outputs["scores"], outputs["features"])


PROFILE = _profile()


def _release(number: int) -> LoadedRelease:
    session = SimpleNamespace(
        roles={"probabilities": "scores", "features": "features"},
        variant="cpu-fp32",
        provider="CPUExecutionProvider",
        probabilities=lambda outputs: outputs["scores"],
    )
    package = SimpleNamespace(meta=SimpleNamespace(labels=tuple("0123456789")))
    return LoadedRelease(digest(number), package, session, PROFILE)  # type: ignore[arg-type]


class Device:
    """The observing half of an agent, over a turned clock, with the broker connected and the hub away."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.cable = TurnedClock(), Cable()
        self.path = folder / "agent.db"
        self.sizes: list[int] = []
        self.random = np.random.default_rng(1)
        self.releases = [_release(number) for number in range(RELEASES)]
        self.answered = 0
        self.start()

    def start(self) -> None:
        known = {loaded.digest: PROFILE for loaded in self.releases}
        self.observing = Observing(
            self.path,
            window_s=WINDOW_S,
            checkpoint_s=STEP_S,
            outbox_bytes=LIMIT,
            clock=self.clock,
            profile_of=known.get,
        )
        self.observing.policy.take({"segment_field": "camera", "segment_values": list(CAMERAS)})
        outbox, append = self.observing.outbox, self.observing.outbox.append

        def measured(db, *row):  # type: ignore[no-untyped-def]
            seq = append(db, *row)
            ((size, bodies, rows),) = db.execute("SELECT SUM(size), SUM(length(body)), COUNT(*) FROM outbox").fetchall()
            assert size == bodies + ROW_OVERHEAD_BYTES * rows
            self.sizes.append(size)
            return seq

        outbox.append = measured  # type: ignore[method-assign]
        self.sender = Sender(
            outbox,
            self.observing.store.epoch,
            self.cable,  # type: ignore[arg-type]
            device="camera-1",
            topic="insights",
            channel=lambda: CHANNEL,
            pace=self.observing.pace,
            clock=self.clock,
        )
        self.sender.connected()

    def cut_the_power(self) -> None:
        self.observing.store.close(clean=False)
        self.start()

    def serve(self, step: int) -> None:
        """What a device does in a few minutes: four cameras ask, now and then somebody gives a label."""
        recorder, loaded = self.observing.recorder, self.releases[step // 5 % RELEASES]
        for camera in CAMERAS:
            inputs, outputs = _batch(5, self.random)
            name = f"{step}-{camera}"
            record(recorder, loaded, name, inputs, outputs, 1_000_000, recorder.segment_of({"camera": camera}))
            self.answered += 5
            if step % 3 == 0:
                recorder.feedback([FeedbackItem(name, step % CLASSES, row) for row in range(2)])
        if step % 50 == 0:
            recorder.record_error(loaded, recorder.segment_of({"camera": "gate"}))
        self.clock.advance(STEP_S)
        recorder.put_away()
        self.sender.send_due()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "agent")


def test_a_day_later_every_count_arrives_and_the_outbox_never_exceeded_its_limit(
    tmp_path: Path, device: Device
) -> None:
    steps = int(DAY_S / STEP_S)
    for step in range(steps):
        device.serve(step)
        if step == steps // 2:
            device.cut_the_power()
    assert device.observing.recorder.flush()
    ledger = device.observing.ledger.by_release()
    assert max(device.sizes) <= LIMIT
    assert max(device.sizes) > 0.8 * LIMIT, "it was full"
    assert sum(totals["predictions"] for totals in ledger.values()) == device.answered
    assert min(totals["feedback"] for totals in ledger.values()) > 50

    hub = Pipeline(tmp_path / "hub", schema_of=lambda found: PROFILE.schema if found in ledger else None)
    device.sender.connected()
    for _ in range(4000):
        device.sender.send_due()
        while device.cable.published:
            hub.send("camera-1", device.cable.published.popleft())
        hub.work()
        for ack in hub.sent.acks("camera-1"):
            assert not ack.refused
            device.sender.acknowledged(ack)
        hub.sent.messages.clear()
        if device.observing.outbox.state().rows == 0:
            break
        device.clock.advance(0.5)
    assert device.observing.outbox.state().rows == 0
    found = hub.insights.totals(CHANNEL)["by_release"]
    assert {release: {name: totals[name] for name in COUNTED} for release, totals in found.items()} == {
        release: {name: totals[name] for name in COUNTED} for release, totals in ledger.items()
    }
    device.observing.stop()
