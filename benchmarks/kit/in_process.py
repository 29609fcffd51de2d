"""The limit of everything: onnxruntime called by threads of one process, which nobody asks over a network.

Run as ``python -m benchmarks.kit.in_process MODEL``. Each line that it gets is an order as JSON, each line that it
prints a `Load`: ``{"threads": 8, "seconds": 1}`` lets so many threads run the session without a pause;
with ``"per_second"`` and ``"seed"`` the runs are due as `load.arrivals` says.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

from benchmarks.kit.load import Load, arrivals

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(tensor,) = session.get_inputs()
row = np.random.default_rng(0).random((1, *tensor.shape[1:]), dtype=np.float32)
clock = time.perf_counter


def closed(threads: int, seconds: float) -> Load:
    """Each thread runs again when its run has ended."""
    taken: list[list[float]] = [[] for _ in range(threads)]
    end = clock() + seconds

    def work(mine: list[float], x: np.ndarray) -> None:
        began = clock()
        while began < end:
            session.run(["probabilities"], {tensor.name: x})
            now = clock()
            mine.append(now - began)
            began = now

    start = clock()
    _in_threads([partial(work, mine, row.copy()) for mine in taken])
    return Load.of([value for mine in taken for value in mine], clock() - start)


def opened(threads: int, seconds: float, per_second: float, seed: int) -> Load:
    """Runs wait for a free thread from the moment at which they are due."""
    due, taken = arrivals(per_second, seconds, seed), list[float]()
    waiting: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    start = clock()

    def work() -> None:
        while (at := waiting.get()) is not None:
            session.run(["probabilities"], {tensor.name: row})
            taken.append(clock() - start - at)

    def feed() -> None:
        for at in due:
            time.sleep(max(at - (clock() - start), 0.0))
            waiting.put(at)
        for _ in range(threads):
            waiting.put(None)

    _in_threads([feed, *[work] * threads])
    return Load.of(taken, clock() - start)


def _in_threads(calls: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    print(json.dumps(asdict(opened(**order) if "per_second" in order else closed(**order))), flush=True)
