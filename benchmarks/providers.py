"""The table of evidence on whatever machine this is: every variant on every provider that is there, checked and timed.

    python -m benchmarks.providers [--policy fast] [--package DIR]… [--switches N] [--cache DIR] [--json FILE]
    python -m benchmarks.providers --write DIR

Without ``--package`` it writes two itself: the MLP 64 → 128 → 10 and a MobileNetV2 224 × 224, each as ``cpu-fp32`` and
``cuda-fp16``, with what onnxruntime's own CPU provider answers as reference. Where the wheel is too old to write
packages (1.31 and before), ``--write`` on another machine makes them for ``--package`` on this one. It needs numpy,
onnx, onnxruntime or another of its wheels, safetensors and cbor2, and nothing else of the project.

The bound: the second start finds the table of the first one and times nothing, and its golden cases still hold. With
``--switches`` what runs is loaded anew that many times, as updates do, while the one before still answers: memory of
this process and of an NVIDIA GPU, once the first tenth of them has settled it, must not grow by more than a twentieth.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.kit import mlp
from benchmarks.models import mobilenet_v2
from edgeloop.package import Draft, DraftVariant, OutputSpec, Package, TensorSpec, write_package
from edgeloop.runtime import (
    Choice,
    ModelLoadError,
    Rules,
    Selector,
    available_providers,
    check_golden,
    runtime_version,
)
from edgeloop.runtime.memory import resident_bytes, trim_memory
from edgeloop.runtime.ort import ort

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
#: A first build of an engine took minutes where it was seen; all else is bounded by the budget.
DEADLINE_S = 240.0
#: Of memory, over as many switches as one likes.
MOST_GROWTH = 1.05


def main() -> int:
    """Exit status: 0 when every package runs and its second start measures nothing."""
    options = _options()
    if options.write is not None:
        for package in written(options.write):
            print(package.root)
        return 0
    print(f"onnxruntime {runtime_version()} with {', '.join(available_providers())}")
    rules = Rules(policy=options.policy, time_budget_s=options.budget, deadline_s=options.deadline)
    documents = []
    held = True
    with tempfile.TemporaryDirectory() as temporary:
        cache = options.cache or Path(temporary, "cache")
        given = map(Package.open, options.package) if options.package else written(Path(temporary))
        for package in given:
            print(f"\n{package.name} {package.version}, policy {options.policy}", flush=True)
            try:
                first_s, choice = _start(cache, rules, package)
            except ModelLoadError as error:
                print(f"nothing runs it: {error}")
                held = False
                continue
            show(choice)
            second_s, again = _start(cache, rules, package)
            same = again.table == choice.table  # to the last digit: nothing was timed
            print(f"start that measures {first_s:.1f} s, start with the table {second_s:.2f} s{'' if same else '  ✗'}")
            held &= same
            if options.switches:
                again, steady = _switched(Selector(cache, rules), package, again, options.switches)
                held &= steady
            documents.append({"package": package.name, "first_s": first_s, "second_s": second_s, "rows": _rows(choice)})
            choice.best.close()
            again.best.close()
    if options.json:
        options.json.write_text(json.dumps(documents, indent=1))
    return 0 if held else 1


def _start(cache: Path, rules: Rules, package: Package) -> tuple[float, Choice]:
    start = time.monotonic()
    choice = Selector(cache, rules).select(package, progress=lambda line: print(f"  … {line}", flush=True))
    return time.monotonic() - start, choice


def _switched(selector: Selector, package: Package, choice: Choice, times: int) -> tuple[Choice, bool]:
    """Load what runs so many times; the last one, and whether memory stayed what it was."""
    settled: dict[str, int] = {}
    for number in range(1, times + 1):
        fresh = selector.select(package)
        check_golden(choice.best, package)
        choice.best.close()
        choice = fresh
        if number == -(-times // 10):
            settled = _memory()
    after = _memory()
    for place, before in settled.items():
        print(f"{times} switches: {place} {before / 1e6:.1f} → {after[place] / 1e6:.1f} MB")
    return choice, all(after[place] <= MOST_GROWTH * before for place, before in settled.items())


def _memory() -> dict[str, int]:
    """Bytes in use: of this process, and of all NVIDIA GPUs by whomever."""
    gc.collect()
    trim_memory()
    found = {"this process": resident_bytes() or 0}
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.split()
        found["GPU"] = sum(map(int, lines)) << 20
    return found


def show(choice: Choice) -> None:
    """Print a table."""
    print(f"  {'variant':<12}{'provider':<28}{'threads':>7}{'ms a row':>11}{'runs':>6}{'load ms':>10}{'MB':>8}")
    for row in _rows(choice):
        figures = "".join(
            f"{'' if value is None else format(value, form):>{width}}"
            for value, form, width in (
                (row["median_ms"], ".4f", 11),
                (row["runs"], "d", 6),
                (row["load_ms"], ".0f", 10),
                (None if row["memory_bytes"] is None else row["memory_bytes"] / 1e6, ".1f", 8),
            )
        )
        verdict = "  ← runs" if row["chosen"] else f"  {row['reason'][:160]}"
        print(f"  {row['variant']:<12}{row['provider']:<28}{row['threads']:>7}{figures}{verdict}")


def _rows(choice: Choice) -> list[dict[str, object]]:
    return [{**vars(row), "chosen": number == choice.chosen} for number, row in enumerate(choice.table)]


# ── the packages ─────────────────────────────────────────────────────────────────────────────────


def written(folder: Path) -> Iterator[Package]:
    """The two networks as packages."""
    random = np.random.default_rng(0)
    yield _package(folder / "mlp", "mlp", mlp.model(), random.random((16, mlp.INPUTS), dtype=np.float32))
    yield _package(folder / "mobilenet", "mobilenet", mobilenet_v2(), random.random((4, 3, 224, 224), dtype=np.float32))


def _package(dest: Path, name: str, model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> Package:
    (tensor,) = model.graph.input
    session = ort.InferenceSession(model.SerializeToString(), providers=[CPU])
    names = [output.name for output in session.get_outputs()]
    reference = dict(zip(names, session.run(names, {tensor.name: x}), strict=True))
    roles = {"probabilities": "probabilities", "features": "features"}
    return write_package(
        dest,
        Draft(
            name=name,
            version="1",
            variants=[
                DraftVariant("cpu-fp32", "fp32", model),
                DraftVariant("cuda-fp16", "fp16", in_fp16(model), CUDA, "gpu"),
            ],
            labels=[str(label) for label in range(reference["probabilities"].shape[1])],
            inputs=[TensorSpec(tensor.name, "FP32", (-1, *x.shape[1:]))],
            outputs=[OutputSpec(n, "FP32", (-1, *reference[n].shape[1:]), roles[n]) for n in names],
            golden_inputs={tensor.name: x},
            golden_outputs={"fp32": reference, "fp16": reference},
            lineage={"source": "benchmarks"},
        ),
    )


def in_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in half precision; inputs and outputs stay float32. All its tensors have to be float32."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    inputs = {value.name: f"{value.name}.half" for value in graph.input}
    outputs = {value.name: f"{value.name}.half" for value in graph.output}
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = inputs.get(name) or outputs.get(name) or name
        for position, name in enumerate(node.output):
            node.output[position] = outputs.get(name, name)
    before = [helper.make_node("Cast", [name], [own], to=TensorProto.FLOAT16) for name, own in inputs.items()]
    after = [helper.make_node("Cast", [own], [name], to=TensorProto.FLOAT) for name, own in outputs.items()]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(half)
    return half


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks.providers", description="The table of evidence on this machine.")
    parser.add_argument(
        "--package", type=Path, action="append", help="folder of a package, instead of the two networks"
    )
    parser.add_argument("--write", type=Path, help="write the two networks' packages to this folder, and end")
    parser.add_argument("--policy", choices=("quiet", "balanced", "fast"), default="fast")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for timing a package's candidates")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds in which a provider has to load")
    parser.add_argument("--switches", type=int, default=0, help="times that what runs is loaded anew, as updates do")
    parser.add_argument("--cache", type=Path, help="folder in which tables and compiled models stay")
    parser.add_argument("--json", type=Path, help="file for the tables")
    parser.add_argument("--quick", action="store_true", help="as `make bench` asks: half a second for timing")
    options = parser.parse_args()
    options.budget = min(options.budget, 0.5) if options.quick else options.budget
    return options


if __name__ == "__main__":
    sys.exit(main())
