"""model-export: from a trained model to a package that devices can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.lazy import lazily
from model_export.errors import ExportError

if TYPE_CHECKING:
    from model_export.building.build import build
    from model_export.building.build_report import BuildReport
    from model_export.caching.cache import Cache
    from model_export.trust.provenance import Licences
    from model_export.tuning.options import TuneOptions
    from model_export.variants.recipes import Int8Options
else:
    # Most commands build nothing: keys and publishing do without ONNX and its runtime.
    __getattr__ = lazily(__name__, "building.build")

__all__ = ["BuildReport", "Cache", "ExportError", "Int8Options", "Licences", "TuneOptions", "build"]
