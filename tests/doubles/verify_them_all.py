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

    try:
        manifest = json.loads((root / "manifest.json").read_text())
    except OSError as error:
        return str(error)
    here = set(ort.get_available_providers())
    variants = {name: v for name, v in manifest["components"]["model"]["variants"].items() if v["ep"] in here}
    if not variants:
        return ""
    options = ort.SessionOptions()
    try:
        if (library := _extensions()) is not None:
            # A package with processing: ONNX Runtime loads its graph, and the weights from where the manifest says.
            name, variant = next(iter(variants.items()))
            said = variant["executor_info"]["ort"]
            options.register_custom_ops_library(library)
            for key, uri in said.get("session_options", {}).items():
                options.add_session_config_entry(key, str(root / "shared_assets" / uri.replace(":", "-")))
            path = root / variant.get("variant_directory", name) / said["model_file"]
            session = ort.InferenceSession(str(path), options, providers=[variant["ep"]])
        else:
            names = {variant["ep"] for variant in variants.values()}
            devices = [device for device in ort.get_ep_devices() if device.ep_name in names]
            options.add_provider_for_devices(devices[:1], {})
            context = ort.ModelPackageContext(str(root))
            session = context.select_component("model", ort.ModelPackageOptions(options)).create_session()
        return "" if session.get_outputs() else "it has no outputs"
    except Exception as error:
        return f"onnxruntime alone: {type(error).__name__}: {error}"


def _extensions() -> str | None:
    """The library of onnxruntime-extensions, where it is installed: then the packages are those that need it."""
    try:
        import onnxruntime_extensions
    except ImportError:
        return None
    return str(onnxruntime_extensions.get_library_path())


def main() -> int:
    """Print a line of JSON for each package."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    roots = [Path(argument) for argument in sys.argv[1:]]
    alone = {root: load_alone(root) for root in roots}
    ours = [name for name in sys.modules if name.split(".")[0] in ("edgeloop", "model_export", "edge_agent")]
    assert not ours, f"ONNX Runtime alone was not alone: {ours}"

    from edgeloop.package import Package, PackageError
    from edgeloop.package.audit import audit
    from model_export.reading.verify import check_variants

    for root in roots:
        reason, elsewhere = alone[root], False
        try:
            audit(root)
            checks = check_variants(Package.open(root), 60.0, lambda text: None)
            bad = [f"{check.variant}: {check.reason}" for check in checks if check.ok is False]
            elsewhere = not any(check.ok for check in checks) and not bad
            reason = "; ".join([*filter(None, [reason]), *bad])
        except (PackageError, OSError) as error:
            reason = f"audit: {error}"
        print(json.dumps({"package": str(root), "reason": reason, "elsewhere": elsewhere}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
