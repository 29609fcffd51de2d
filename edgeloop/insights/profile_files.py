"""A profile as two files: the bins, which a new head leaves as they are, and the reference, which it changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgeloop.insights.binning import Edges
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array
from edgeloop.insights.summaries import input_summaries
from edgeloop.insights.window import Window
from edgeloop.insights.wire import MAX_DEVICE_COUNT, arrays_from_wire, arrays_to_wire

if TYPE_CHECKING:
    from edgeloop.insights.profile import Profile

BINS_FILE, REFERENCE_FILE = "bins.safetensors", "reference.safetensors"
#: A package is hostile until audited: no profile is larger than this.
MAX_FILE_BYTES = 64 << 20
_LAYOUT = ("classes", "features", "inputs", "projections", "bins", "seed", "input_width")
_HINT = "build the package again"


def save_profile(profile: Profile, folder: Path, reference_folder: Path) -> None:
    """Write both files; the folders exist."""
    schema, edges = profile.schema, profile.edges
    sizes = (schema.classes, schema.features, schema.inputs, schema.projections, schema.bins)
    layout = np.array([*sizes, profile.seed, profile.input_width], dtype=np.int64)
    bins = {
        "layout": layout,
        "confidence": edges.confidence,
        "inputs": edges.inputs,
        "projections": edges.projections,
    }
    (folder / BINS_FILE).write_bytes(save({name: np.ascontiguousarray(array) for name, array in bins.items()}))
    counted = {name: np.ascontiguousarray(a) for name, a in profile.reference.arrays.items() if a.any()}
    (reference_folder / REFERENCE_FILE).write_bytes(save(counted))


def load_profile(folder: Path, reference_folder: Path) -> Profile:
    """Read both files, from anybody.

    Raises:
        InsightsError: a file is damaged, too large, or contradicts the other.
        OSError: the bins cannot be read.
    """
    from edgeloop.insights.profile import Profile

    bins = _tensors(folder / BINS_FILE)
    schema, seed, input_width = _layout(bins)
    inner = schema.bins - 1
    edges = Edges(
        _edges(bins, "confidence", (inner,)),
        _edges(bins, "inputs", (schema.inputs, inner)),
        _edges(bins, "projections", (schema.projections, inner)),
    )
    reference = Window.zero(schema)
    if (reference_folder / REFERENCE_FILE).exists():
        reference.arrays = _reference(_tensors(reference_folder / REFERENCE_FILE), schema)
    return Profile(schema, edges, seed, input_width, reference)


def _layout(bins: dict[str, Array]) -> tuple[WindowSchema, int, int]:
    layout = bins.get("layout")
    if layout is None or layout.dtype != np.int64 or layout.shape != (len(_LAYOUT),):
        raise InsightsError(f"the profile's layout is not {len(_LAYOUT)} integers; {_HINT}")
    *sizes, seed, input_width = (int(value) for value in layout)
    schema = WindowSchema(*sizes)
    expected = input_summaries(input_width) if input_width > 0 else 0
    if seed < 0 or input_width < 0 or schema.inputs != expected:
        raise InsightsError(f"the profile's layout {layout.tolist()} contradicts itself; {_HINT}")
    return schema, seed, input_width


def _edges(bins: dict[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    edges = bins.get(name)
    if edges is None or edges.dtype != np.float64 or edges.shape != shape:
        raise InsightsError(f"the profile's edges {name} are not float64 {list(shape)}; {_HINT}")
    if not np.isfinite(edges).all() or (np.diff(edges, axis=-1) < 0).any():
        raise InsightsError(f"the profile's edges {name} are not finite and rising; {_HINT}")
    return edges


def _reference(tensors: dict[str, Array], schema: WindowSchema) -> dict[str, Array]:
    for name, array in tensors.items():
        spec = schema.arrays.get(name)
        if spec is None or array.dtype != spec.dtype or array.shape != spec.shape:
            raise InsightsError(f"the profile's reference has {name} as {array.dtype} {list(array.shape)}; {_HINT}")
        if array.dtype.kind == "i" and array.size and int(array.min()) < 0:
            raise InsightsError(f"the profile's reference has negative counts in {name}; {_HINT}")
    try:
        return arrays_from_wire(arrays_to_wire(tensors), schema, MAX_DEVICE_COUNT)
    except InsightsError as error:
        raise InsightsError(f"the profile's reference is refused: {error}; {_HINT}") from error


def _tensors(path: Path) -> dict[str, Array]:
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise InsightsError(f"{path.name} has {size} bytes, the limit is {MAX_FILE_BYTES}; {_HINT}")
    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InsightsError(f"{path.name} is not a safetensors file: {error}; {_HINT}") from error
