"""How often drift is seen that is there, and how often drift that is not: `make bench`, or as a module of its own.

Digits turn, get darker, noisier, come in another mix, or lose a column of pixels. edgeloop gets a window: counts and
sums. Evidently gets every row, with the confidence and the predicted class besides. Both are set to the same rate of
false alarms, each by the same clean windows, and the share of drifted windows that each sees is printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.drift_power.worlds import CLEAN, DRIFTS, VALIDATION, Array, Digits, Drift, Trial
from benchmarks.kit.environments import InstallError, environment
from edgeloop.insights import Observer, Profile, Window, compare

SIZES = (50, 100, 200, 500, 1000)
#: Of clean windows; and the share of the peer's power that sums alone have to keep.
RATE, BOUND = 0.05, 0.9
#: Evidently 0.7 does not start with pandas 3.
PEER = ("evidently==0.7.15", "pandas<3")


def ours(digits: Digits, trials: Sequence[Trial]) -> Array:
    """The p-value of each window, all aspects together."""
    found = []
    for trial in trials:
        features, probabilities = digits.answers(trial.normal)
        profile = Profile.fit(trial.normal, probabilities, features)
        features, probabilities = digits.answers(trial.seen)
        window = Window.zero(profile.schema, "sha256:benchmark")
        Observer(profile).observe(window, trial.seen, probabilities, features, np.zeros(0, np.int64))
        found.append(compare(window, profile.reference, profile.schema).p_value)
    return np.array(found)


def theirs(python: Path, digits: Digits, trials: Sequence[Trial]) -> Array:
    """The least p-value of each window by the peer, which is given every row."""

    def rows(x: Array) -> Array:
        _, probabilities = digits.answers(x)
        return np.column_stack([x, probabilities.max(axis=1), probabilities.argmax(axis=1)]).astype(np.float32)

    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "given.npz"), Path(folder, "answer.npy")
        np.savez(given, normal=[rows(trial.normal) for trial in trials], seen=[rows(trial.seen) for trial in trials])
        script = Path(__file__).with_name("peer.py")
        subprocess.run([str(python), str(script), str(given), str(answer)], check=True, timeout=3600)
        return np.asarray(np.load(answer))


def interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's interval of a share, 99 %."""
    z, share = 2.576, count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return middle - half, middle + half


def main() -> int:
    """Exit status: 0 when the bounds hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift_power", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    quick = parser.parse_args().quick
    clean, drifted, sizes = (100, 10, (100, 500)) if quick else (500, 30, SIZES)
    digits = Digits()
    print(
        f"validation {VALIDATION} digits, network's accuracy {digits.accuracy:.3f}; {clean} clean windows of each size"
    )
    try:
        python: Path | None = environment("evidently", PEER)
    except InstallError as error:
        print(f"the peer is left out: {error}")
        python = None
    held = True
    power: dict[Drift, list[tuple[float, float]]] = {drift: [] for drift in DRIFTS}
    for rows in sizes:
        trials = list(digits.trials(CLEAN, rows, clean, seed=0))
        for drift in DRIFTS:
            trials += digits.trials(drift, rows, drifted, seed=1)
        p = ours(digits, trials)
        # Once for all of a size: it takes longer to start than to compute.
        peer = theirs(python, digits, trials) if python else np.ones(len(p))
        alarms = int((p[:clean] < RATE).sum())
        low, high = interval(alarms, clean)
        good = low <= RATE
        held &= good
        print(
            f"{rows:>5} rows: set to {RATE:.0%}, {alarms / clean:.1%} of clean windows are false alarms "
            f"(99 %: {low:.1%} to {high:.1%}) {'' if good else 'TOO MANY'}",
            flush=True,
        )
        limits = np.quantile(p[:clean], RATE), np.quantile(peer[:clean], RATE)
        for place, cells in enumerate(power.values()):
            part = slice(clean + place * drifted, clean + (place + 1) * drifted)
            cells.append((float((p[part] <= limits[0]).mean()), float((peer[part] <= limits[1]).mean())))
    print(f"\npower at {RATE:.0%} false alarms for both: edgeloop from sums / Evidently from every row")
    print(f"{'':24}" + "".join(f"{rows:>14}" for rows in sizes))
    for drift, cells in power.items():
        told = "".join(f"{f'{mine:.2f} / {other:.2f}':>14}" for mine, other in cells)
        print(f"{drift.kind:<12}{drift.grade:<12}{told}")
    print()
    for kind in (*dict.fromkeys(drift.kind for drift in DRIFTS), "all"):
        chosen = [cell for drift, cells in power.items() if kind in (drift.kind, "all") for cell in cells]
        mine, other = np.mean(chosen, axis=0)
        good = python is None or mine >= BOUND * other
        held &= good or kind != "all"
        beside = f", Evidently {other:.3f}, ratio {mine / other:.2f}" if python else ""
        print(f"{kind:<12} edgeloop {mine:.3f}{beside}{'' if good else f'  below {BOUND}'}")
    print(f"bounds: no more false alarms than set; power over all drifts at least {BOUND} of the peer's")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
