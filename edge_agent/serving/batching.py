"""Dynamic batching: which waiting requests run together, and whether that helps this model on this device.

That it helps is measured, not believed: a CPU often computes eight rows no faster than eight times one. And that it is
allowed is measured too: the rows of a batch must come out as they do alone, which a model that looks across its batch
does not give.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.records import dataclass
from edgeloop.runtime import CPU, InferenceError, ModelSession

Array = npt.NDArray[Any]

#: A batch has to bring so much more than its rows one by one, or waiting for it is not worth the complexity.
LEAST_GAIN, LEAST_HOPE = 1.2, 1.1
#: Measuring ends after so long; large models are then measured with small batches only. The first run of a size is not
#: timed and may take longer: CUDA looks for the fastest kernels then, which took a second on an H200.
MEASURE_S, PREPARE_S = 0.5, 10.0
RUN_DEADLINE_S = 30.0
#: A size that was run before, and takes so many times as long and so many seconds more after another one, has been
#: forgotten: CUDA's convolutions plan anew then, 1 to 4 s instead of 1.4 ms (MobileNetV2, onnxruntime 1.31, an H200).
#: What takes so many seconds is no accident, and is not looked at twice.
FORGOTTEN, FORGOTTEN_S, SURELY_S = 5.0, 0.02, 0.5
#: Where all runs have one size, a single row may take so many times as long in it.
LONGER = 1.5
#: Rows of a batch may differ from rows alone by rounding; kernels choose other summation orders for other sizes.
SAME_ABSOLUTE, SAME_RELATIVE = 1e-3, 1e-2


@dataclass(frozen=True)
class BatchRules:
    """What the owner of the device decides about batches.

    Attributes:
        max_rows: largest batch; 1: none.
        delay_s: how long a request may wait for others; 0: only those that wait anyway go together.
        preferred: sizes to be reached within the delay, the largest that waits is taken; () for ``max_rows``.
    """

    max_rows: int = 32
    delay_s: float = 0.0
    preferred: tuple[int, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What was measured of a model on this device.

    Attributes:
        run_ns: least nanoseconds of one run, by its rows.
        why_not: why there are no batches, or "".
        prepares: the provider prepares itself for each size at its first run, so only measured sizes are good ones.
        block: rows of every run, where the provider prepares itself anew whenever the size changes; 0: any.
    """

    run_ns: Mapping[int, int]
    why_not: str = ""
    prepares: bool = False
    block: int = 0

    def best_rows(self, rules: BatchRules) -> int:
        """The largest batch that is worth it; 1 when none is."""
        if self.block:
            return self.block
        worth = self._worth()
        if not worth:
            return 1
        # Where the largest that was measured still gains, larger ones do too.
        whole = worth[-1] == max(self.run_ns) and not self.prepares
        return rules.max_rows if whole else min(worth[-1], rules.max_rows)

    def sizes(self) -> tuple[int, ...]:
        """The sizes that a batch may have; () for any."""
        return (1, *self._worth()) if self.prepares else ()

    def _worth(self) -> list[int]:
        one = self.run_ns.get(1, 0)
        gains = [rows for rows, ns in self.run_ns.items() if rows > 1 and one * rows >= LEAST_GAIN * ns]
        return [] if self.why_not else sorted(gains)


def measure(session: ModelSession, golden: Mapping[str, Array], max_rows: int) -> Evidence:
    """Time one row and batches, and compare the rows of a batch with rows alone.

    Args:
        session: whose runs are measured; it is warm afterwards, and its runs have one size where that is found best.
        golden: inputs by name, [N, …].
        max_rows: largest batch of interest.

    Raises:
        InferenceError: the model fails on a golden case.
    """
    alone = {name: values[:1] for name, values in golden.items()}
    one = _least_ns(session, alone, runs=7)
    found = {1: one}
    off = "batches are switched off" if max_rows <= 1 else ""
    if off and session.provider == CPU:
        return Evidence(found, off)
    shapes = {spec.name: spec.shape for spec in session.inputs} | {spec.name: spec.shape for spec in session.outputs}
    if fixed := [name for name, shape in shapes.items() if not shape or shape[0] != -1]:
        return Evidence(found, f"the first dimension of {fixed[0]} is fixed")
    cases = min(len(values) for values in golden.values())
    if cases < 2:
        return Evidence(found, "there is one golden case only")
    try:
        if difference := _rows_differ(session, golden, min(cases, 8)):
            return Evidence(found, difference)
        forgets = session.provider != CPU and _forgets(session, golden, one)
        begun, rows, gained = time.monotonic(), 2, True
        while rows <= max_rows and gained and sum(size * ns for size, ns in found.items()) < MEASURE_S * 1e9:
            # Cases come again where there are too few of them: what a run takes does not depend on what is in it.
            batch = {name: values[np.arange(rows) % cases] for name, values in golden.items()}
            found[rows] = _least_ns(session, batch, runs=3)
            # Twice as many rows for nearly twice the time, twice in a row: larger ones gain nothing either.
            gained = rows == 2 or one * rows >= LEAST_HOPE * found[rows]
            rows *= 4 if forgets else 2
            if time.monotonic() - begun > PREPARE_S:
                break
        block = max(rows for rows, ns in found.items() if ns <= LONGER * one) if forgets else 0
        if block:
            session.run_in_blocks(block)
        session.shrink(alone)
    except InferenceError as error:
        return Evidence({1: one}, f"a batch cannot be run: {error}")
    return Evidence(found, off, prepares=session.provider != CPU and not block, block=block)


def largest_of(
    waiting: Sequence[int], most: int, preferred: Sequence[int], *, waited: bool, sizes: Sequence[int] = ()
) -> int:
    """How many of the requests that wait, in their order, make the next batch; 0: wait for more.

    Args:
        waiting: rows of each request, none larger than 0.
        most: rows of the largest batch.
        preferred: sizes to be reached; () for ``most``.
        waited: the first one has waited as long as it may.
        sizes: that a batch may have; () for any. A request of another size runs alone.
    """
    sums = np.cumsum(waiting)
    fits = max(int(np.searchsorted(sums, most, side="right")), 1)  # a request that is larger runs alone
    wanted = [size for size in preferred if size <= most] or [most]
    reached = [count for count in range(1, fits + 1) if sums[count - 1] in wanted]
    if not reached and not waited and fits == len(waiting) and sums[fits - 1] < max(wanted):
        return 0
    count = reached[-1] if reached else fits
    if sizes:
        allowed = [number for number in range(1, count + 1) if sums[number - 1] in sizes]
        return allowed[-1] if allowed else 1
    return count


def _forgets(session: ModelSession, golden: Mapping[str, Array], one_ns: int) -> bool:
    """Whether a size that was prepared has to be prepared again once another one has run."""
    two, one = ({name: values[:rows] for name, values in golden.items()} for rows in (2, 1))
    for _ in range(2):  # whatever else the device does makes one of them longer, and hardly both
        session.run(two, None, RUN_DEADLINE_S)
        start = time.perf_counter_ns()
        session.run(one, None, RUN_DEADLINE_S)
        took = time.perf_counter_ns() - start
        if took <= FORGOTTEN * one_ns + FORGOTTEN_S * 1e9:
            return False
        if took > SURELY_S * 1e9:
            break
    return True


def _rows_differ(session: ModelSession, golden: Mapping[str, Array], rows: int) -> str:
    batch = session.run({name: values[:rows] for name, values in golden.items()}, None, RUN_DEADLINE_S)
    for row in (0, rows - 1):
        alone = session.run({name: values[row : row + 1] for name, values in golden.items()}, None, RUN_DEADLINE_S)
        for spec, together, single in zip(session.outputs, batch, alone, strict=True):
            if len(together) != rows or len(single) != 1:
                return f"{spec.name} has not one row for each row of a batch"
            same = (
                np.allclose(together[row], single[0], rtol=SAME_RELATIVE, atol=SAME_ABSOLUTE, equal_nan=True)
                if together.dtype.kind in "fc"
                else bool((together[row] == single[0]).all())
            )
            if not same:
                return f"{spec.name} of a row depends on the other rows of its batch"
    return ""


def _least_ns(session: ModelSession, inputs: Mapping[str, Array], runs: int) -> int:
    """The shortest of some runs: whatever else the device does can only make one longer."""
    session.run(inputs, None, RUN_DEADLINE_S)
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        session.run(inputs, None, RUN_DEADLINE_S)
        times.append(time.perf_counter_ns() - start)
        if sum(times) > MEASURE_S * 1e9:
            break
    return min(times)
