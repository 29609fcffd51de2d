"""What model-export makes of a model, beside what others make of the same one: size, latency, accuracy, time spent.

``python -m benchmarks.export [--quick] [MODEL …]``: a MobileNetV2, a ResNet-18, a BERT of three layers and boosted
trees, trained here on scikit-learn's digits and tables and on the documentation that Python carries. Each peer has an
environment of its own; one that does not install or run is reported with its error. All models are judged in one
session setting, in turn; accuracy is that on test rows, which nobody who quantized has seen.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.export import judging, sources
from benchmarks.export.judging import Candidate
from benchmarks.export.sources import Material
from benchmarks.kit.environments import InstallError, environment
from benchmarks.serving.report import Bound, machine

HERE = Path(__file__).parent
#: What accuracy may be given up, on the test rows; and what a latency's noise may add to the best peer's.
BUDGET, NOISE = 0.01, 1.05
ROUNDS, QUICK_ROUNDS = 15, 5
PEER_LIMIT_S = 1200.0
TORCH = ("optimum-onnx==0.1.0", "transformers<4.58", "torch==2.13.0", "onnxruntime==1.32.0", "onnx<1.24")
ORT = ("onnxruntime==1.32.0", "onnx<1.24", "sympy")
#: Peer → its program, and what its environment has.
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "onnxruntime quantize_dynamic": ("ort_dynamic", ORT),
    "onnxruntime quantize_static": ("ort_static", ORT),
    "optimum": ("optimum_default", TORCH),
    "Olive": ("olive_auto", ("olive-ai==0.13.0", "onnxruntime==1.32.0", "requests", "datasets", "torch==2.13.0")),
    "Neural Compressor": ("compressor_static", ("neural-compressor==3.10", "torch==2.13.0", "onnxruntime==1.32.0")),
}


def main() -> int:
    """Exit status: 0 when the bounds hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    arguments = parser.parse_args()
    print(machine(), f"\n1 row a call, {judging.THREADS} thread; accuracy on test rows\n")
    makers = sources.trees()
    try:
        makers |= sources.networks(environment("optimum", TORCH))
    except InstallError as error:
        print(f"no networks: PyTorch cannot be installed: {error}\n")
    if unknown := set(arguments.models) - set(makers):
        parser.error(f"there is no model {min(unknown)}; there are {', '.join(makers)}")
    bounds: list[Bound] = []
    for name in arguments.models or makers:
        material = makers[name]()
        candidates = compared(material, QUICK_ROUNDS if arguments.quick else ROUNDS)
        print(table(material, candidates), flush=True)
        bounds += checked(name, candidates)
    for bound in bounds:
        print(bound)
    return 0 if bounds and all(bound.holds for bound in bounds) else 1


def compared(material: Material, rounds: int) -> list[Candidate]:
    """Everybody's model, judged; float32 first, ours last."""
    with tempfile.TemporaryDirectory() as folder:
        candidates = [judging.of_file("float32", material.model, 0.0)]
        candidates += [made(peer, program, needs, material, Path(folder)) for peer, (program, needs) in PEERS.items()]
        candidates.append(ours(material, Path(folder)))
        judging.judge(candidates, material.test(), rounds)
    return candidates


def made(peer: str, program: str, needs: Sequence[str], material: Material, folder: Path) -> Candidate:
    """A peer's model, or why there is none."""
    output = folder / f"{program}.onnx"
    try:
        python = environment(program.partition("_")[0], needs)
    except InstallError as error:
        return Candidate(peer, error=f"does not install: {error}")
    began = time.monotonic()
    command = [
        str(python),
        str(HERE / "peers" / f"{program}.py"),
        str(material.model),
        str(material.build),
        str(output),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PEER_LIMIT_S, check=False, cwd=folder)
    except subprocess.TimeoutExpired:
        return Candidate(peer, error=f"ran for more than {PEER_LIMIT_S:.0f} s")
    seconds = time.monotonic() - began
    if done.returncode:
        return Candidate(peer, seconds, error=_last_line(done.stderr, done.returncode))
    try:
        return judging.of_file(peer, output, seconds)
    except Exception as error:  # onnxruntime's have no common root
        return Candidate(peer, seconds, error=f"onnxruntime does not load it: {str(error).splitlines()[0][:160]}")


def _last_line(text: str, status: int) -> str:
    said = [line for line in text.splitlines() if line.strip()]
    return said[-1][:200] if said else f"ended with {status}"


def ours(material: Material, folder: Path) -> Candidate:
    """The package of `model-export build --tune`, with an empty cache."""
    package = folder / "package"
    command = [str(Path(sys.executable).parent / "model-export"), "build", str(material.model), "-o", str(package)]
    command += ["--data", str(material.build), "--tune", "--objective", "latency", "--accuracy-drop", str(BUDGET)]
    began = time.monotonic()
    command += ["--cache", str(folder / "cache"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        said = json.loads(done.stdout)["error"] if done.stdout else _last_line(done.stderr, done.returncode)
        return Candidate("edgeloop", seconds, error=said)
    kept = sources.CACHE / "packages" / material.name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(package, kept)
    return judging.of_package("edgeloop", kept, seconds)


def table(material: Material, candidates: Sequence[Candidate]) -> str:
    """One line a candidate."""
    plain = candidates[0]
    lines = [f"{material.name:34} {'size':>9} {'latency':>10} {'of fp32':>8} {'accuracy':>9} {'drop':>7} {'spent':>7}"]
    for one in candidates:
        if one.error:
            lines.append(f"{one.name:34} {one.error}")
            continue
        ratio = one.latency_ms / plain.latency_ms
        lines.append(
            f"{one.name:34} {one.bytes / 1e6:6.2f} MB {one.latency_ms:7.3f} ms {ratio:8.2f} "
            f"{one.accuracy:9.4f} {plain.accuracy - one.accuracy:7.4f} {one.seconds:5.0f} s"
        )
    return "\n".join([*lines, ""])


def checked(name: str, candidates: Sequence[Candidate]) -> list[Bound]:
    """Ours against the best of the others that keeps the budget (float32 does), and against the budget itself."""
    plain, *others, our = candidates
    if our.error:
        print(f"{name}: no package: {our.error}")
        return [Bound(f"{name}: packages made", 0.0, 1.0)]
    able = [one for one in (plain, *others) if not one.error and plain.accuracy - one.accuracy <= BUDGET]
    best = min(able, key=lambda one: one.latency_ms)
    spent = [one for one in others if one.name == "Olive" and not one.error]
    return [
        Bound(f"{name}: accuracy given up", plain.accuracy - our.accuracy, BUDGET, at_least=False),
        Bound(f"{name}: latency, of {best.name}'s", our.latency_ms / best.latency_ms, NOISE, at_least=False),
        *(Bound(f"{name}: time, of Olive's", our.seconds / one.seconds, 1.0, at_least=False) for one in spent),
    ]


if __name__ == "__main__":
    sys.exit(main())
