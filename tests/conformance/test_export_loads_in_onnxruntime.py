"""A package that `model-export build` wrote is loaded by ONNX Runtime alone, and gives the golden outputs.

The child process that loads it imports no edgeloop code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles import digits

#: All that another program needs: onnxruntime, numpy, safetensors, and the package's folder.
ALONE = r"""
import json, sys
from pathlib import Path
import numpy as np
import onnxruntime as ort
from safetensors.numpy import load_file

root = Path(sys.argv[1])
options = ort.SessionOptions()
cpu = [d for d in ort.get_ep_devices() if d.ep_name == "CPUExecutionProvider"]
options.add_provider_for_devices(cpu, {})
component = ort.ModelPackageContext(str(root)).select_component("model", ort.ModelPackageOptions(options))
session = component.create_session()
variant = component.get_selected_variant_name()

manifest = json.loads((root / "manifest.json").read_text())
asset = lambda uri: root / "shared_assets" / uri.replace(":", "-")
golden = manifest["additional_metadata"]["edgeloop"]["golden"]
inputs = load_file(asset(golden["inputs"]) / "inputs.safetensors")
precision = variant.partition("-")[2]
expected = load_file(asset(golden["outputs"]) / f"outputs-{precision}.safetensors")
got = dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs)))
worst = max(float(np.abs(got[name] - array).max()) for name, array in expected.items())
print(json.dumps({
    "variant": variant,
    "outputs": sorted(got),
    "compared": sorted(expected),
    "cases": len(next(iter(inputs.values()))),
    "worst": worst,
    "label_agreement": float((got["label"] == expected["label"]).mean()),
    "edgeloop": [m for m in sys.modules if m.split(".")[0] in ("edgeloop", "model_export", "edge_agent", "cloud_hub")],
}))
"""


@pytest.mark.parametrize("precision", [("fp32",), None], ids=["fp32", "both"])
def test_onnxruntime_alone_reproduces_the_golden_outputs(tmp_path: Path, precision: tuple[str, ...] | None) -> None:
    """Of a package with both variants it takes the small one."""
    digits.build(tmp_path / "package", precision=precision)
    found = _load_alone(tmp_path)
    assert found["variant"] == ("cpu-int8" if precision is None else "cpu-fp32")
    assert found["outputs"] == ["features", "label", "probabilities"]
    assert found["compared"] == ["label", "probabilities"]
    assert found["cases"] == 32
    assert found["label_agreement"] == 1.0
    assert found["worst"] < 1e-5
    assert found["edgeloop"] == []


def _load_alone(folder: Path) -> dict[str, object]:
    # Away from the repository, and without it on the path.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder / "package")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found
