"""What an update of the head alone costs a device, on the digits package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeloop.package import required_paths, revise_head
from edgeloop.runtime import ModelSession, evaluate
from tests.doubles import digits

#: The issue's bound.
MOST = 0.15


def test_a_new_head_costs_a_device_a_small_part_of_the_package(tmp_path: Path) -> None:
    from edgeloop.package import Package

    digits.build(tmp_path / "base")
    base = Package.open(tmp_path / "base")
    weight, bias = base.head_arrays()
    golden = base.golden()
    revised = revise_head(
        base,
        tmp_path / "revised",
        weight=weight * 1.5,
        bias=bias + 0.25,
        golden_outputs={p: {n: np.roll(a, 1, axis=0) for n, a in o.items()} for p, o in golden.outputs.items()},
        profile=base.profile(),
        metrics=dict(base.meta.metrics),
        # As the hub writes it, anew: how the base was converted is told by the base.
        lineage={"source": {"kind": "retrained"}, "parent": base.digest, "alarm": 1, "run": 1},
        version="1.0.1",
    )
    have = {entry.sha256 for entry in required_paths(base.manifest, base.index, None)}
    fetched = [e for e in required_paths(revised.manifest, revised.index, None) if e.sha256 not in have]
    cost = sum(entry.size for entry in fetched) + len(revised.index.to_bytes())
    # A new head also changes the reference of the profile; count it although this test does not change it.
    cost += sum(e.size for e in revised.index.entries if e.path.endswith("reference.safetensors"))
    whole = sum(entry.size for entry in required_paths(base.manifest, base.index, None))
    assert {Path(entry.path).name for entry in fetched} == {
        "manifest.json",
        "head.weight.bin",
        "head.bias.bin",
        "outputs-fp32.safetensors",
        "outputs-int8.safetensors",
    }
    assert cost <= MOST * whole, f"{cost} of {whole} bytes"


def test_every_variant_uses_the_new_head(tmp_path: Path) -> None:
    from edgeloop.package import Package

    digits.build(tmp_path / "base")
    base = Package.open(tmp_path / "base")
    weight, bias = base.head_arrays()
    swapped = revise_head(
        base, tmp_path / "swapped", weight=np.roll(weight, 1, axis=0), bias=np.roll(bias, 1),
        golden_outputs=base.golden().outputs, profile=base.profile(), metrics={}, lineage={}, version="2",
    )  # fmt: skip
    test = digits.splits().test
    for variant in ("cpu-fp32", "cpu-int8"):
        old, new = (ModelSession.load(package, variant) for package in (base, swapped))
        before = evaluate(old, {"input": test.x}, test.y).accuracy
        after = evaluate(new, {"input": test.x}, (test.y + 1) % 10).accuracy
        assert before > 0.93 and abs(before - after) < 1e-9
