"""The profile that a package ships: what the validation data look like to this model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.insights import InsightsError, Profile
from model_export.errors import DataError
from model_export.graph import Array
from model_export.prepare import Prepared


def make_profile(prepared: Prepared, rows: Mapping[str, Array], outputs: Mapping[str, Array]) -> Profile:
    """Fit a profile on the validation rows and a variant's outputs for them.

    Insights look at the first input only, as the agent's observer does.

    Raises:
        DataError: too few rows are usable.
    """
    first = rows[prepared.inputs[0].name]
    features = None if prepared.head is None else outputs[prepared.head.features]
    try:
        return Profile.fit(np.asarray(first), prepared.probabilities(outputs), features)
    except InsightsError as error:
        raise DataError(
            f"no profile can be made of the validation rows: {error}", "give more and varied rows"
        ) from error
