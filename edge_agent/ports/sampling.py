"""Samples, as the data plane sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edge_agent.ports.releases import Array, LoadedRelease


class Sampling(Protocol):
    """Samples, as the data plane sees them, while any may be kept."""

    def offer(
        self,
        loaded: LoadedRelease,
        prediction_id: str,
        inputs: Mapping[str, Array],
        lent: bool,
        outputs: Sequence[Array],
        places: Mapping[str, int],
        segment: str,
    ) -> None:
        """Note one answered request; never blocks, never raises. The arrays are read later.

        Args:
            loaded: what answered.
            prediction_id: of the request.
            inputs: by name, [N, …] each.
            lent: whether somebody may change them once the request is answered.
            outputs: of the run, [N, …] each.
            places: name → place in ``outputs``.
            segment: of the request, or "".
        """
