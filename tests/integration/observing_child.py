"""A child process that records, labels and checkpoints in a loop until it is killed.

    python -m tests.integration.observing_child DATABASE PROGRESS

PROGRESS is appended to before each request is recorded: (monotonic seconds, predictions and labels recorded before it)
as three float64, so that the parent knows what a killed child had taken in, and when.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from pathlib import Path

from edge_agent.observing.assembly import Observing
from edge_agent.ports import FeedbackItem
from tests.doubles.recording import record
from tests.unit.observing.doubles import batch, release

CHECKPOINT_S = 0.25
WINDOW_S = 0.6
PROGRESS = struct.Struct("<ddd")


def main(database: Path, progress: Path) -> None:
    observing = Observing(database, checkpoint_s=CHECKPOINT_S, window_s=WINDOW_S, outbox_bytes=60_000)
    releases = [release(1), release(2)]
    inputs, outputs = batch(3)
    observing.start()
    predictions = labels = number = 0
    with progress.open("ab", buffering=0) as log:
        while True:
            log.write(PROGRESS.pack(time.monotonic(), predictions, labels))
            loaded = releases[int(time.monotonic() / 1.5) % 2]
            name = f"{time.monotonic_ns()}-{number}"
            record(observing.recorder, loaded, name, inputs, outputs, 1000)
            predictions += 3
            number += 1
            if number % 5 == 0:
                labels += observing.recorder.feedback([FeedbackItem(name, 1, 2)]).accepted
            if number % 10 == 0:
                time.sleep(random.random() * 0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
