"""Model packages: index and digest, reading, the audit, writing.

The format on disk is ONNX Runtime's model package (schema 1.x); ONNX Runtime alone can load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.lazy import lazily
from edgeloop.package.audit import Limits, audit, audit_in_child, audit_model_in_child
from edgeloop.package.difference import Base
from edgeloop.package.errors import PackageError
from edgeloop.package.index import Index, IndexEntry
from edgeloop.package.manifest import (
    MANIFEST,
    HeadSpec,
    Manifest,
    Metadata,
    OutputSpec,
    TensorSpec,
    VariantSpec,
    asset_folder,
    required_paths,
)
from edgeloop.package.opening import Golden, Package, read_manifest

if TYPE_CHECKING:
    from edgeloop.package.author import revise_head, write_package
    from edgeloop.package.draft import Draft, DraftVariant
else:
    __getattr__ = lazily(__name__, "draft", "author")

__all__ = [
    "MANIFEST",
    "Base",
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
    "audit_model_in_child",
    "read_manifest",
    "required_paths",
    "revise_head",
    "write_package",
]
