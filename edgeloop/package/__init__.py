"""Model packages: index and digest, reading, the audit, writing.

The format on disk is ONNX Runtime's model package (schema 1.x); ONNX Runtime alone can load it.
"""

from __future__ import annotations

from edgeloop.package.audit import Limits, audit, audit_in_child
from edgeloop.package.author import Draft, DraftVariant, revise_head, write_package
from edgeloop.package.errors import PackageError
from edgeloop.package.index import Index, IndexEntry
from edgeloop.package.manifest import (
    HeadSpec,
    Manifest,
    Metadata,
    OutputSpec,
    TensorSpec,
    VariantSpec,
    asset_folder,
    required_paths,
)
from edgeloop.package.opening import Golden, Package

__all__ = [
    "Draft",
    "DraftVariant",
    "Golden",
    "HeadSpec",
    "Index",
    "IndexEntry",
    "Limits",
    "Manifest",
    "Metadata",
    "OutputSpec",
    "Package",
    "PackageError",
    "TensorSpec",
    "VariantSpec",
    "asset_folder",
    "audit",
    "audit_in_child",
    "required_paths",
    "revise_head",
    "write_package",
]
