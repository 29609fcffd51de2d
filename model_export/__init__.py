"""model-export: from a trained model to a package that devices can run."""

from __future__ import annotations

from model_export.build import BuildReport, build_package
from model_export.errors import ExportError

__all__ = ["BuildReport", "ExportError", "build_package"]
