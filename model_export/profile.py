"""The profile that a package ships: what the validation data look like to this model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.insights import InsightsError, Profile
from edgeloop.insights.calibrating import FEWEST_ROWS, calibrated
from model_export.errors import DataError
from model_export.graph import Array
from model_export.prepare import Prepared


def make_profile(prepared: Prepared, rows: Mapping[str, Array], outputs: Mapping[str, Array], truth: Array) -> Profile:
    """Fit a profile on the validation rows, a variant's outputs for them, and their true classes.

    Insights look at the first input only, as the agent's observer does. With fewer than `FEWEST_ROWS` rows there is no
    calibration, so that the accuracy of this release cannot be estimated without labels.

    Raises:
        DataError: too few rows are usable.
    """
    first = np.asarray(rows[prepared.inputs[0].name])
    probabilities = prepared.probabilities(outputs)
    features = None if prepared.head is None else outputs[prepared.head.features]
    try:
        profile = Profile.fit(first, probabilities, features)
        if len(truth) < FEWEST_ROWS:
            return profile
        return calibrated(profile, first, probabilities, features, truth)
    except InsightsError as error:
        raise DataError(
            f"no profile can be made of the validation rows: {error}", "give more and varied rows"
        ) from error
