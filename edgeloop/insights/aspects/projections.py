"""Where the features lie: fixed random projections of them."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.insights.aspects.base import Rows
from edgeloop.insights.aspects.histogram import Histogram
from edgeloop.insights.sizes import Floats, Sizes
from edgeloop.insights.summaries import feature_signs


class Projections(Histogram):
    """``projections`` int64 [P, B]: sign projections of the features."""

    name = "projections"

    def rows(self, sizes: Sizes) -> int:
        """See :class:`Histogram`."""
        return sizes.projections

    def title(self, input_names: Sequence[str], row: int) -> str:
        """See :class:`Histogram`."""
        return f"projection {row}"

    def values(self, rows: Rows) -> Floats | None:
        """See :class:`Histogram`."""
        if rows.features is None:
            return None
        schema = rows.profile.schema
        return feature_signs(schema.features, schema.projections, rows.profile.seed) @ rows.features.T
