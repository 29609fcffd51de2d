"""A source whose operators are newer than the oldest runtime that shall read them, brought to an older opset."""

from __future__ import annotations

from dataclasses import replace

from onnx import version_converter

from model_export.data import Table
from model_export.errors import UnsupportedModelError
from model_export.graphs.opsets import Limits, too_new
from model_export.graphs.probe import Probe
from model_export.sources import parity
from model_export.sources.model import Source


def capped(source: Source, table: Table, limits: Limits) -> Source:
    """The source as the runtime reads it; the same where it does so already.

    Raises:
        UnsupportedModelError: onnx's converter cannot take it back, or makes another model of it.
    """
    reason = too_new(source.model, limits)
    if not reason:
        return source
    hint = f"export it again with opset {limits.opset} (of ai.onnx.ml {limits.ml}) or older, or update the devices"
    refused = f"ONNX Runtime {limits.runtime} cannot read {source.file or source.name}: it has {reason}"
    try:
        model = version_converter.convert_version(source.model, limits.opset)
    except Exception as error:  # the converter raises RuntimeError, and what its C++ raises
        raise UnsupportedModelError(f"{refused}; onnx cannot convert it: {str(error)[:300]}", hint) from error
    if still := too_new(model, limits):
        raise UnsupportedModelError(f"{refused}; converted it has {still}", hint)
    rows = parity.rows_of(source.model, table)
    if differs := parity.compare(model, Probe(source.model).run, rows, "onnx").refused(parity.EVERY_ROW):
        raise UnsupportedModelError(f"{refused}; converted it is another model: {differs}", hint)
    was = next(opset.version for opset in source.model.opset_import if opset.domain in ("", "ai.onnx"))
    note = f"brought from opset {was} to {limits.opset}, which ONNX Runtime {limits.runtime} reads"
    return replace(source, model=model, notes=(*source.notes, note))
