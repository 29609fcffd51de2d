"""The profile: what normal looks like. Edges of the bins, and the window of the validation data as reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeloop.insights.aspects.entropy import LEAST_CLASSES
from edgeloop.insights.binning import Edges, equal_mass_edges
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.histograms import HISTOGRAMS
from edgeloop.insights.observer import Observer, row_summaries
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.sizes import Array, Floats
from edgeloop.insights.summaries import input_names, input_summaries, is_numeric, row_width
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
        input_width: numbers in one row of the first input, or 0 when it is not numeric.
        reference: the window of the validation data; an aspect without counts has no reference yet.
    """

    schema: WindowSchema
    edges: Edges
    seed: int
    input_width: int
    reference: Window

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
    ) -> Profile:
        """The profile of validation data.

        Args:
            inputs: the first input, [N, …]; summarised when it is numeric.
            probabilities: [N, K].
            features: the last layer's input, [N, F], or None when the model does not expose it.
            bins: B, equal-mass bins of each histogram.
            projections: P, random projections of the features.
            seed: of the projections.

        Raises:
            InsightsError: the arrays do not fit one another, or fewer than B rows are finite.
        """
        width = row_width(inputs) if is_numeric(inputs) else 0
        schema = WindowSchema(
            classes=int(probabilities.shape[1]) if probabilities.ndim == 2 else 0,
            features=0 if features is None else int(features.shape[1]),
            inputs=input_summaries(width),
            projections=0 if features is None or features.shape[1] == 0 else projections,
            bins=bins,
            entropies=int(probabilities.shape[-1] >= LEAST_CLASSES),
        )
        blank = cls(schema, Edges({}), seed, width, Window.zero(schema))
        rows = row_summaries(blank, inputs, probabilities, features)
        if len(rows.top) < bins:
            raise InsightsError(
                f"{len(rows.top)} finite rows are too few for a profile with {bins} bins; give more data"
            )
        found = {histogram.name: histogram.values(rows) for histogram in HISTOGRAMS}
        profile = replace(blank, edges=Edges({name: _edges(values, bins) for name, values in found.items()}))
        reference = Window.zero(schema)
        Observer(profile).observe(reference, inputs, probabilities, features, np.zeros(0, np.int64))
        return profile.with_reference(reference)

    def with_reference(self, window: Window) -> Profile:
        """The same bins with another reference, such as that of a new head.

        Raises:
            InsightsError: the window has another schema.
        """
        if window.schema != self.schema:
            raise InsightsError(f"the reference has the schema {window.schema}, the profile {self.schema}")
        return replace(self, reference=window)

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


def _edges(values: Floats | None, bins: int) -> Floats:
    return np.zeros((0, bins - 1)) if values is None or not len(values) else equal_mass_edges(values, bins)
