"""SIGKILL at random moments: the ledger equals the windows, and what is lost is no more than a checkpoint interval."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from edge_agent.observing.assembly import Observing
from edge_agent.observing.rows import unpack
from tests.integration.observing_child import CHECKPOINT_S, PROGRESS
from tests.unit.observing.doubles import profile

KILLS = 120 if os.environ.get("EDGELOOP_SOAK") else 20
# A checkpoint begins up to one fold (0.2 s) after it is due, and its write takes a while on a busy machine.
SLACK_S = 0.6
OUTBOX_BYTES = 60_000
ROOT = Path(__file__).resolve().parents[2]


def taken_in(progress: Path, before: float) -> tuple[float, float]:
    """(predictions, labels) that the child had recorded for sure at the time ``before``."""
    data = progress.read_bytes()
    data = data[: len(data) // PROGRESS.size * PROGRESS.size]
    best = (0.0, 0.0)
    for at, predictions, labels in PROGRESS.iter_unpack(data):
        if at <= before:
            best = (predictions, labels)
    return best


def test_a_killed_agent_loses_a_checkpoint_interval_at_most(tmp_path: Path) -> None:
    database = tmp_path / "agent.db"
    schema = profile().schema
    at_least = {"predictions": 0.0, "feedback": 0.0}
    at_most = {"predictions": 0.0, "feedback": 0.0}
    epochs = set()
    for kill in range(KILLS):
        progress = tmp_path / f"progress-{kill}"
        progress.touch()
        command = [sys.executable, "-m", "tests.integration.observing_child", str(database), str(progress)]
        child = subprocess.Popen(command, cwd=ROOT)
        try:
            until = time.monotonic() + 30
            while not progress.stat().st_size and time.monotonic() < until:
                assert child.poll() is None, "the child ended by itself"
                time.sleep(0.005)
            time.sleep(random.random() * 1.5)
        finally:
            killed_at = time.monotonic()
            child.kill()
            child.wait()
        predictions, labels = taken_in(progress, killed_at - CHECKPOINT_S - SLACK_S)
        at_least["predictions"] += predictions
        at_least["feedback"] += labels
        predictions, labels = taken_in(progress, killed_at)
        at_most["predictions"] += predictions + 3
        at_most["feedback"] += labels + 1

        observing = Observing(database, outbox_bytes=OUTBOX_BYTES)
        try:
            # The child's own start counted the kill before it; this start counts the kill of this round.
            assert observing.store.started_unclean
            assert observing.store.unclean_restarts == kill + 1
            epochs.add(observing.store.epoch)
            state = observing.outbox.state()
            assert state.bytes <= OUTBOX_BYTES
            assert not observing.store.rows("SELECT 1 FROM open_window")
            rows = observing.store.rows("SELECT windows, body FROM outbox ORDER BY row")
            assert sum(windows for windows, _ in rows) == state.last_seq
            windows = [unpack(body, schema) for _, body in rows]
            ledger = observing.ledger.totals()
            for name in ("predictions", "errors", "feedback", "escalations"):
                assert ledger[name] == sum(getattr(window, name) for window in windows), name
            for release, totals in observing.ledger.by_release().items():
                mine = [window for window in windows if window.release == release]
                assert totals["classes"] == sum(window.arrays["classes"] for window in mine).tolist()
            for name, least in at_least.items():
                assert least <= ledger[name] <= at_most[name], name
        finally:
            observing.stop()
    assert len(epochs) == 1
    assert at_least["predictions"] > 0
