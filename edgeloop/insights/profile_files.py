"""A profile as two files: the bins, which a new head leaves as they are, and the reference, which it changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgeloop.insights.binning import Edges
from edgeloop.insights.calibration import PREFIX, Calibration
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.forms import KINDS, InputForm
from edgeloop.insights.histograms import HISTOGRAMS
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array
from edgeloop.insights.summaries import input_summaries
from edgeloop.insights.sums import Sums
from edgeloop.insights.window import Window
from edgeloop.insights.wire import MAX_DEVICE_COUNT, arrays_from_wire, arrays_to_wire

if TYPE_CHECKING:
    from edgeloop.insights.profile import Profile

BINS_FILE, REFERENCE_FILE = "bins.safetensors", "reference.safetensors"
#: A package is hostile until audited: no profile is larger than this.
MAX_FILE_BYTES = 64 << 20
#: Profiles of before have the first seven alone; what they lack is 0.
_LAYOUT = (
    "classes",
    "features",
    "inputs",
    "projections",
    "bins",
    "seed",
    "input_width",
    "entropies",
    "images",
    "texts",
    "kind",
    "channel_axis",
    "pad",
)
_FIRST_LAYOUT = 7
_HINT = "build the package again"


def save_profile(profile: Profile, folder: Path, reference_folder: Path) -> None:
    """Write both files; the folders exist."""
    form = profile.form
    facts = {**vars(profile.schema), "seed": profile.seed, "input_width": profile.input_width}
    facts |= {"kind": KINDS.index(form.kind), "channel_axis": form.channel_axis, "pad": form.pad}
    bins = {histogram.name: profile.edges.of(histogram.name) for histogram in HISTOGRAMS}
    bins["vocabulary"] = form.vocabulary
    bins["layout"] = np.array([facts[name] for name in _LAYOUT], dtype=np.int64)
    (folder / BINS_FILE).write_bytes(save({name: np.ascontiguousarray(array) for name, array in bins.items()}))
    counted = {name: np.ascontiguousarray(a) for name, a in profile.reference.arrays.items() if a.any()}
    if profile.calibration is not None:
        counted |= profile.calibration.to_tensors()
    (reference_folder / REFERENCE_FILE).write_bytes(save(counted))


def load_profile(folder: Path, reference_folder: Path) -> Profile:
    """Read both files, from anybody.

    Raises:
        InsightsError: a file is damaged, too large, or contradicts the other.
        OSError: the bins cannot be read.
    """
    from edgeloop.insights.profile import Profile

    bins = _tensors(folder / BINS_FILE)
    schema, seed, input_width, form = _layout(bins)
    edges = Edges({found.name: _edges(bins, found.name, (found.rows(schema), schema.bins - 1)) for found in HISTOGRAMS})
    reference = Window.zero(schema)
    calibration = None
    if (reference_folder / REFERENCE_FILE).exists():
        tensors = _tensors(reference_folder / REFERENCE_FILE)
        calibration = Calibration.from_tensors(tensors, schema)
        counted = {name: array for name, array in tensors.items() if not name.startswith(PREFIX)}
        reference.arrays = _reference(counted, schema)
    return Profile(schema, edges, seed, input_width, reference, form, calibration)


def _layout(bins: dict[str, Array]) -> tuple[WindowSchema, int, int, InputForm]:
    layout = bins.get("layout")
    if layout is None or layout.dtype != np.int64 or layout.shape not in ((_FIRST_LAYOUT,), (len(_LAYOUT),)):
        raise InsightsError(f"the profile's layout is not {len(_LAYOUT)} integers; {_HINT}, or update edgeloop")
    facts = {"kind": 0, "channel_axis": 0, "pad": -1, **dict(zip(_LAYOUT, layout.tolist(), strict=False))}
    seed, input_width, kind = facts.pop("seed"), facts.pop("input_width"), facts.pop("kind")
    if not 0 <= kind < len(KINDS):
        raise InsightsError(f"the profile's input is of the unknown kind {kind}; {_HINT}, or update edgeloop")
    vocabulary = bins.get("vocabulary", np.zeros(0, np.uint8))
    form = InputForm(KINDS[kind], facts.pop("channel_axis"), facts.pop("pad"), vocabulary)
    schema = WindowSchema(**facts)
    expected = input_summaries(input_width) if input_width > 0 else 0
    applies = (form.kind == "image", form.has_words)
    if seed < 0 or input_width < 0 or schema.inputs != expected or applies != (schema.images > 0, schema.texts > 0):
        raise InsightsError(f"the profile's layout {layout.tolist()} contradicts itself; {_HINT}")
    try:
        form.check()
    except InsightsError as error:
        raise InsightsError(f"the profile's layout contradicts itself: {error}; {_HINT}") from error
    return schema, seed, input_width, form


def _edges(bins: dict[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    edges = bins.get(name)
    if edges is None and 0 in shape:
        return np.zeros(shape)  # a histogram that is younger than the profile
    if edges is None or edges.dtype != np.float64 or edges.size != math.prod(shape):
        raise InsightsError(f"the profile's edges {name} are not float64 {list(shape)}; {_HINT}")
    if not np.isfinite(edges).all() or (np.diff(edges, axis=-1) < 0).any():
        raise InsightsError(f"the profile's edges {name} are not finite and rising; {_HINT}")
    return edges.reshape(shape)  # a histogram of one row may have one axis


def _reference(tensors: dict[str, Array], schema: WindowSchema) -> Sums:
    for name, array in tensors.items():
        spec = schema.arrays.get(name)
        if spec is None or array.dtype != spec.dtype or array.shape != spec.shape:
            raise InsightsError(f"the profile's reference has {name} as {array.dtype} {list(array.shape)}; {_HINT}")
        if array.dtype.kind == "i" and array.size and int(array.min()) < 0:
            raise InsightsError(f"the profile's reference has negative counts in {name}; {_HINT}")
    try:
        return arrays_from_wire(arrays_to_wire(tensors), schema, MAX_DEVICE_COUNT)[0]
    except InsightsError as error:
        raise InsightsError(f"the profile's reference is refused: {error}; {_HINT}") from error


def _tensors(path: Path) -> dict[str, Array]:
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise InsightsError(f"{path.name} has {size} bytes, the limit is {MAX_FILE_BYTES}; {_HINT}")
    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InsightsError(f"{path.name} is not a safetensors file: {error}; {_HINT}") from error
