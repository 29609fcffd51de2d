"""Run by a fresh environment's Python: each package as `model-export verify` does it, and loaded by ONNX Runtime alone.

The audit runs in this process and not in one of its own each: these packages come from our own tests. ONNX Runtime
loads each before anything of edgeloop is imported.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def load_alone(root: Path) -> str:
    """Why ONNX Runtime by itself does not load a package, or ""."""
    import onnxruntime as ort

    manifest = json.loads((root / "manifest.json").read_text())
    variants = manifest["components"]["model"]["variants"].values()
    options = ort.SessionOptions()
    here = {variant["ep"] for variant in variants} & set(ort.get_available_providers())
    if not here:
        return ""
    try:
        import onnxruntime_extensions
    except ImportError:
        pass
    else:
        options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    devices = [device for device in ort.get_ep_devices() if device.ep_name in here]
    options.add_provider_for_devices(devices[:1], {})
    try:
        chosen = ort.ModelPackageContext(str(root)).select_component("model", ort.ModelPackageOptions(options))
        session = chosen.create_session()
        return "" if session.get_outputs() else "it has no outputs"
    except Exception as error:
        return f"onnxruntime alone: {type(error).__name__}: {error}"


def main() -> int:
    """Print a line of JSON for each package."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    roots = [Path(argument) for argument in sys.argv[1:]]
    alone = {root: load_alone(root) for root in roots}
    ours = [name for name in sys.modules if name.split(".")[0] in ("edgeloop", "model_export", "edge_agent")]
    assert not ours, f"ONNX Runtime alone was not alone: {ours}"

    from edgeloop.package import Package, PackageError
    from edgeloop.package.audit import audit
    from model_export.verify import check_variants

    for root in roots:
        reason, elsewhere = alone[root], False
        try:
            audit(root)
            checks = check_variants(Package.open(root), 60.0, lambda text: None)
            bad = [f"{check.variant}: {check.reason}" for check in checks if check.ok is False]
            elsewhere = not any(check.ok for check in checks) and not bad
            reason = "; ".join([*filter(None, [reason]), *bad])
        except PackageError as error:
            reason = f"audit: {error}"
        print(json.dumps({"package": str(root), "reason": reason, "elsewhere": elsewhere}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
