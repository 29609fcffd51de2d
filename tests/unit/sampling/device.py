"""A device that samples: real databases, real drawing, a session that answers what it is told, a link that notes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edge_agent.observing.store import Store
from edge_agent.ports import Sampling
from edge_agent.sampling.assembly import Line, Samples, SamplesRules
from edgeloop.protocol import Ack, Sample
from edgeloop.sampling.policy import SamplesLimits

RELEASE = "sha256:" + "1" * 64
EVERYTHING = {"strategies": {"random": 1.0}, "per_day": 1_000_000, "bytes_per_day": 1 << 40}
CONSENT = SamplesLimits(consent=True)


def loaded(release: str = RELEASE) -> Any:
    """A release whose session takes its outputs for probabilities."""
    session = SimpleNamespace(
        roles={"probabilities": "p", "features": "f"}, probabilities=lambda outputs: outputs.get("p")
    )
    return SimpleNamespace(digest=release, session=session)


class NotingLink:
    """Notes what is published."""

    connected = True

    def __init__(self) -> None:
        self.published: list[Sample] = []

    def publish(self, topic: str, payload: bytes) -> bool:
        assert topic == "samples"
        self.published.append(Sample.from_bytes(payload))
        return True


class Device:
    """One device over a folder; made again over the same folder it is the same device, started again."""

    def __init__(
        self,
        folder: Path,
        limits: SamplesLimits = CONSENT,
        *,
        hub: str = "http://127.0.0.1:9",
        drifted: Callable[[str], bool] = lambda release: False,
        **rules: Any,
    ) -> None:
        self.path, self.link = folder / "samples.db", NotingLink()
        self.offered: list[Sampling | None] = []
        self.store = Store(folder / "agent.db")
        self.samples = Samples(
            "dev-1",
            self.store,
            self.path,
            limits,
            SamplesRules(**{"bytes_per_s": 0.0, **rules}),
            channel=lambda: "stable",
            offers=self.offered.append,
            drifted=drifted,
        )
        self.line = Line(self.link, "samples", lambda: hub, None)  # type: ignore[arg-type]  # a double

    def start(self, *, connected: bool = False, **policy: Any) -> Device:
        """Start, and follow a policy; without fields of one it is what was asked for before."""
        self.samples.start()
        if policy:
            self.samples.policy.take(policy)
        if connected:
            self.samples.connect(self.line)
        return self

    def answer(self, name: str, rows: Any, probabilities: Any = None, lent: bool = False) -> None:
        """The data plane answers a request, and offers it where it is asked to."""
        rows = np.asarray(rows, np.float32)
        found = np.tile([0.7, 0.3], (len(rows), 1)) if probabilities is None else np.asarray(probabilities)
        outputs = [found.astype(np.float32), rows[:, :2] + 100]
        if self.offered and (sampling := self.offered[-1]) is not None:
            sampling.offer(loaded(), name, {"x": rows}, lent, outputs, {"p": 0, "f": 1}, "")

    def acknowledge(self, *numbers: int) -> None:
        """The hub has stored samples."""
        self.samples.acknowledged(Ack(self.store.epoch, 0, (), numbers))

    def stop(self) -> None:
        """An orderly stop."""
        self.samples.stop()
        self.store.close(clean=True)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what another thread does."""
    import time

    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.01)
