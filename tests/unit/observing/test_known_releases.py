"""What is remembered of releases goes when nothing of them is left on the device."""

from __future__ import annotations

from pathlib import Path

from edge_agent.observing.assembly import Observing
from tests.doubles.recording import record
from tests.unit.observing.doubles import batch, digest, release


def test_a_start_forgets_releases_of_which_nothing_waits(tmp_path: Path) -> None:
    observing = Observing(tmp_path / "agent.db", feedback_keep=1)
    inputs, outputs = batch(1)
    for number in (1, 2, 3, 4):
        record(observing.recorder, release(number), f"p{number}", inputs, outputs, 1000)
        assert observing.recorder.flush()
        if number < 3:
            (row,) = observing.outbox.send_next(1, 1)
            assert observing.outbox.acknowledge(row.last) == 1
    observing.stop()

    again = Observing(tmp_path / "agent.db", feedback_keep=1)
    kept = {number: again._known.get(digest(number)) is not None for number in (1, 2, 3, 4)}
    assert kept == {1: False, 2: False, 3: True, 4: True}
    assert [row[0] for row in again.store.rows("SELECT digest FROM release ORDER BY digest")] == [digest(3), digest(4)]
    record(again.recorder, release(1), "p5", inputs, outputs, 1000)
    assert again.recorder.flush() and again.ledger.by_release()[digest(1)]["predictions"] == 2
    again.stop()
