"""The profile: what normal looks like. Edges of the bins, and the window of the validation data as reference."""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path

import numpy as np

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.entropy import LEAST_CLASSES
from edgeloop.insights.aspects.images import TITLES as IMAGES
from edgeloop.insights.aspects.texts import TITLES as TEXTS
from edgeloop.insights.binning import Edges, count_bins, equal_mass_edges
from edgeloop.insights.calibration import Calibration
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.forms import InputForm, Kind
from edgeloop.insights.histograms import HISTOGRAMS
from edgeloop.insights.observer import Observer, row_summaries
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array, Floats
from edgeloop.insights.summaries import input_names, input_summaries, row_width
from edgeloop.insights.window import Window
from edgeloop.records import dataclass


@dataclass(frozen=True, eq=False)
class Profile:
    """What normal looks like for one release.

    The edges belong to the backbone and the data, and do not change when a head is replaced; the reference does.

    Attributes:
        schema: of this release's windows.
        edges: inner edges of the equal-mass bins.
        seed: of the fixed random projections, 0 … 2^63-1.
        input_width: numbers in one row of the first input, or 0 when it has no summaries: a text, or tokens.
        reference: the window of the validation data; an aspect without counts has no reference yet.
        form: what the first input is.
        calibration: what its confidence means; it belongs to the head, like the reference. None: nobody knows yet.
    """

    schema: WindowSchema
    edges: Edges
    seed: int
    input_width: int
    reference: Window
    form: InputForm = field(default_factory=InputForm)
    calibration: Calibration | None = None

    @classmethod
    def fit(
        cls,
        inputs: Array,
        probabilities: Array,
        features: Array | None,
        *,
        bins: int = 10,
        projections: int = 8,
        seed: int = 0,
        kind: Kind | None = None,
    ) -> Profile:
        """The profile of validation data.

        Args:
            inputs: the first input, [N, …]; summarised when it is numeric and not tokens.
            probabilities: [N, K].
            features: the last layer's input, [N, F], or None when the model does not expose it.
            bins: B, equal-mass bins of each histogram.
            projections: P, random projections of the features.
            seed: of the projections.
            kind: what the first input is, where somebody knows; tokens are never guessed (:meth:`InputForm.of`).

        Raises:
            InsightsError: the arrays do not fit one another, or fewer than B rows are finite.
        """
        form = InputForm.of(inputs, kind)
        width = 0 if form.has_words else row_width(inputs)
        schema = WindowSchema(
            classes=int(probabilities.shape[1]) if probabilities.ndim == 2 else 0,
            features=0 if features is None else int(features.shape[1]),
            inputs=input_summaries(width),
            projections=0 if features is None or features.shape[1] == 0 else projections,
            bins=bins,
            entropies=int(probabilities.shape[-1] >= LEAST_CLASSES),
            images=len(IMAGES) if form.kind == "image" else 0,
            texts=len(TEXTS) if form.has_words else 0,
        )
        blank = cls(schema, Edges({}), seed, width, Window.zero(schema), form)
        rows = row_summaries(blank, inputs, probabilities, features)
        if len(rows.top) < bins:
            raise InsightsError(
                f"{len(rows.top)} finite rows are too few for a profile with {bins} bins; give more data"
            )
        blank = replace(blank, form=form if rows.inputs is None else form.learned(rows.inputs[::2]))
        values = _values(replace(rows, profile=blank))
        profile = replace(blank, edges=Edges({name: _edges(found, bins) for name, found in values.items()}))
        reference = Window.zero(schema)
        Observer(profile).observe(reference, inputs, probabilities, features, np.zeros(0, np.int64))
        for name, found in values.items():
            if len(found):
                reference.arrays[name] = count_bins(found, profile.edges.of(name)).reshape(schema.arrays[name].shape)
        return profile.with_reference(reference)

    def with_reference(self, window: Window) -> Profile:
        """The same bins with another reference, such as that of a new head.

        Raises:
            InsightsError: the window has another schema.
        """
        if window.schema != self.schema:
            raise InsightsError(f"the reference has the schema {window.schema}, the profile {self.schema}")
        return replace(self, reference=window)

    def with_calibration(self, calibration: Calibration | None) -> Profile:
        """The same with another calibration, that of a new head; None: it has none yet."""
        return replace(self, calibration=calibration)

    @property
    def input_names(self) -> tuple[str, ...]:
        """What each input summary is called, in order."""
        return input_names(self.input_width)[: self.schema.inputs]

    def save(self, folder: Path, reference_folder: Path | None = None) -> None:
        """Write ``bins.safetensors`` to one folder and ``reference.safetensors`` to the other, or to the same."""
        from edgeloop.insights.profile_files import save_profile

        save_profile(self, folder, reference_folder or folder)

    @staticmethod
    def load(folder: Path, reference_folder: Path | None = None) -> Profile:
        """Read what :meth:`save` wrote; a reference that is not there is a zero window.

        Raises:
            InsightsError: a file is damaged, or the two do not fit one another.
            OSError: the bins cannot be read.
        """
        from edgeloop.insights.profile_files import load_profile

        return load_profile(folder, reference_folder or folder)


def _values(rows: Rows) -> dict[str, Floats]:
    """What each histogram counts of the validation data, float64 [rows, n]; [0, 0] where it does not apply."""
    found = {histogram: histogram.values(rows) for histogram in HISTOGRAMS}
    return {
        histogram.name: np.zeros((0, 0)) if values is None else values[:, histogram.reference_rows]
        for histogram, values in found.items()
    }


def _edges(values: Floats, bins: int) -> Floats:
    return equal_mass_edges(values, bins) if len(values) else np.zeros((0, bins - 1))
