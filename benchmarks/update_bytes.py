"""What an update that brings a new head costs a device, as a share of the package: a MobileNetV2 with 10 classes.

The bound is 2 %: the index, the manifest and every changed file are counted, as a device would fetch them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from benchmarks.models import mobilenet_v2
from edgeloop.package import Package, required_paths, revise_head
from model_export import build

#: Enough rows for calibration, golden cases and a profile of ten bins; what they show does not matter for sizes.
ROWS = 48
MOST = 0.02


def fetched_bytes(new: Package, old: Package) -> int:
    """Bytes that a device with ``old`` fetches for ``new``: its index and each file that it lacks, once."""
    have = {entry.sha256 for entry in old.index.entries}
    lacking = {e.sha256: e.size for e in required_paths(new.manifest, new.index, None) if e.sha256 not in have}
    return len(new.index.to_bytes()) + sum(lacking.values())


def main() -> int:
    """Exit status: 0 when the bound holds."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        onnx.save(mobilenet_v2(classes=10), folder / "mobilenet.onnx")
        images = random.random((ROWS, 3, 224, 224), dtype=np.float32)
        np.savez(folder / "data.npz", x=images, label=random.integers(0, 10, ROWS))
        build(
            str(folder / "mobilenet.onnx"),
            folder / "base",
            folder / "data.npz",
            precision=("fp32", "int8"),
            name="mobilenet",
            max_loss=1.0,  # random weights: there is no accuracy to lose
        )
        base = Package.open(folder / "base")
        weight, bias = base.head_arrays()
        golden = base.golden()
        profile = base.profile()
        if profile is None:
            raise SystemExit("the package has no profile")
        changed = {
            precision: {name: values + np.float32(0.01) for name, values in outputs.items()}
            for precision, outputs in golden.outputs.items()
        }
        new = revise_head(
            base,
            folder / "new",
            weight=weight + np.float32(0.01),
            bias=bias + np.float32(0.01),
            golden_outputs=changed,
            profile=profile.with_reference(profile.reference.merge(profile.reference)),
            metrics=base.meta.metrics,
            lineage={"parent": base.digest},
            version="2",
        )
        # Held to what a device fetches the first time: the validation set, which only the hub has, would flatter us.
        first = sum(e.size for e in required_paths(base.manifest, base.index, None)) + len(base.index.to_bytes())
        update = fetched_bytes(new, base)
    print(f"first release {first:,} bytes, update {update:,} bytes: {update / first:.2%} (bound {MOST:.0%})")
    return 0 if update <= MOST * first else 1


if __name__ == "__main__":
    sys.exit(main())
