"""model-export: from a trained model to a package that devices can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.lazy import lazily
from model_export.errors import ExportError

if TYPE_CHECKING:
    from model_export.build_report import BuildReport
    from model_export.building import build
else:
    # Most commands build nothing: keys and publishing do without ONNX and its runtime.
    __getattr__ = lazily(__name__, "building")

__all__ = ["BuildReport", "ExportError", "build"]
