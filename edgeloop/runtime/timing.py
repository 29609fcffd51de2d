"""Timing things against one another: in turn, so that heat, clocks and neighbours fall on all of them alike.

Medians taken one after the other differ by more than most recipes do; here the ratio within a round is compared.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeloop.records import dataclass

#: Seconds of one block: long against a clock's tick and a switch of context, short against what changes meanwhile.
BLOCK_S = 0.02
MOST_CALLS_OF_A_BLOCK = 500
#: With fewer rounds the interval of a median says nothing.
LEAST_ROUNDS, MOST_ROUNDS = 8, 200
#: Single calls that are kept for percentiles.
KEPT_CALLS = 5000
_POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Timing:
    """Of one contender.

    Attributes:
        median_ms: of a call.
        p95_ms: of a call.
        cpu_ms: processor time of a call, of all threads of this process.
        energy_mj: of a call, of the whole processor package while it ran; None where RAPL cannot be read.
        ratio: to the first contender's time: median over the rounds.
        low, high: bounds of that median, 95 % (order statistics).
        calls: that were timed.
        energy_high: upper bound, likewise, of the ratio of energy, or of processor time where RAPL cannot be read; None
            where neither clock has moved.
    """

    median_ms: float
    p95_ms: float
    cpu_ms: float
    energy_mj: float | None
    ratio: float
    low: float
    high: float
    calls: int
    energy_high: float | None = None


def interleaved(
    contenders: Sequence[Callable[[], object]],
    budget_s: float,
    *,
    close: float = 0.02,
    hopeless: float = math.inf,
    block_s: float = BLOCK_S,
) -> list[Timing]:
    """Time contenders against the first one.

    Args:
        contenders: what is called; the first is the baseline.
        budget_s: seconds for all of them, after which it ends whatever is known; a slow model gets a few rounds all the
            same.
        close: it ends when every ratio is known to this share.
        hopeless: it ends when every ratio is surely above this one.
        block_s: seconds of one contender's turn.
    """
    sizes = [_block_size(call, block_s) for call in contenders]
    singles: list[list[float]] = [[] for _ in contenders]
    blocks: list[list[_Block]] = [[] for _ in contenders]
    end = time.perf_counter() + budget_s
    order = list(range(len(contenders)))
    for done in range(1, MOST_ROUNDS + 1):
        for i in order if done % 2 else reversed(order):
            block, times = _block(contenders[i], sizes[i])
            blocks[i].append(block)
            if len(singles[i]) < KEPT_CALLS:
                singles[i] += times
        late = time.perf_counter() > end
        if late and done >= min(LEAST_ROUNDS, 3):
            break
        if done < LEAST_ROUNDS:
            continue
        intervals = [_interval([b.ms / a.ms for a, b in zip(blocks[0], mine, strict=True)]) for mine in blocks[1:]]
        if all(high <= low * (1 + close) for _, low, high in intervals):
            break
        if intervals and all(low > hopeless for _, low, _ in intervals):
            break
    return [_timing(times, mine, blocks[0]) for times, mine in zip(singles, blocks, strict=True)]


@dataclass(frozen=True)
class _Block:
    ms: float
    cpu_ms: float
    energy_mj: float | None


def _block_size(call: Callable[[], object], block_s: float) -> int:
    """Calls that fill a block; the first ones warm up."""
    for _ in range(2):
        call()
    start = time.perf_counter()
    call()
    return max(1, min(MOST_CALLS_OF_A_BLOCK, round(block_s / max(time.perf_counter() - start, 1e-7))))


def _block(call: Callable[[], object], size: int) -> tuple[_Block, list[float]]:
    times = []
    energy, cpu = _energy_uj(), time.process_time()
    for _ in range(size):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    cpu, after = time.process_time() - cpu, _energy_uj()
    # The counter wraps around now and then; such a block says nothing of energy.
    used = None if energy is None or after is None or after < energy else (after - energy) / 1e3 / size
    return _Block(statistics.median(times), cpu * 1e3 / size, used), times


def _timing(times: list[float], blocks: list[_Block], first: list[_Block]) -> Timing:
    ratio, low, high = _interval([b.ms / a.ms for a, b in zip(first, blocks, strict=True)])
    energies = [block.energy_mj for block in blocks if block.energy_mj is not None]
    ordered = sorted(times)
    return Timing(
        median_ms=statistics.median(ordered),
        p95_ms=ordered[math.ceil(0.95 * len(ordered)) - 1],
        cpu_ms=statistics.median(block.cpu_ms for block in blocks),
        energy_mj=statistics.median(energies) if energies else None,
        ratio=ratio,
        low=low,
        high=high,
        calls=len(times),
        energy_high=_energy_high(blocks, first),
    )


def _energy_high(blocks: Sequence[_Block], first: Sequence[_Block]) -> float | None:
    pairs = [(a.energy_mj, b.energy_mj) for a, b in zip(first, blocks, strict=True)]
    if all(None in pair for pair in pairs):
        pairs = [(a.cpu_ms, b.cpu_ms) for a, b in zip(first, blocks, strict=True)]
    ratios = [mine / base for base, mine in pairs if base and mine is not None]
    return _interval(ratios)[2] if ratios else None


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval by order statistics: n/2 ± 0.98 √n, which needs no distribution."""
    ordered = sorted(values)
    count = len(ordered)
    reach = 0.98 * math.sqrt(count)
    low, high = math.floor(count / 2 - reach), math.ceil(count / 2 + reach)
    return statistics.median(ordered), ordered[max(0, low)], ordered[min(count - 1, high)]


def _energy_uj() -> int | None:
    """Microjoules that the processor packages have used so far (RAPL), or None where nobody may read them."""
    found = []
    for path in _RAPL:
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):
            return None
    return sum(found) if found else None


def _packages() -> list[Path]:
    """Counters of whole processor packages; those inside them would be counted twice."""
    try:
        return sorted(path / "energy_uj" for path in _POWERCAP.glob("intel-rapl:*") if path.name.count(":") == 1)
    except OSError:
        return []


_RAPL = _packages()
