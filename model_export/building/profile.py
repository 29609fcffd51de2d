"""The profile that a package ships: what the validation data look like to this model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.insights import InsightsError, Profile
from edgeloop.insights.calibrating import FEWEST_ROWS, calibrated
from edgeloop.insights.forms import Kind
from model_export.errors import DataError
from model_export.graphs.graph import Array
from model_export.prepare import Prepared

#: What the inputs of language models are called: transformers' name, and those of others. Tokens look like any table of
#: integers, so nothing but a name, or the person, can say that they are some.
TOKEN_NAMES = ("input_ids", "token_ids", "input_word_ids", "tokens")


def make_profile(
    prepared: Prepared,
    rows: Mapping[str, Array],
    outputs: Mapping[str, Array],
    truth: Array,
    input_kind: Kind | None = None,
) -> Profile:
    """Fit a profile on the validation rows, a variant's outputs for them, and their true classes.

    Insights look at the first input only, as the agent's observer does. With fewer than `FEWEST_ROWS` rows there is no
    calibration, so that the accuracy of this release cannot be estimated without labels.

    Args:
        prepared: the model.
        rows: validation rows [N, …] by input.
        outputs: a variant's, for them.
        truth: true classes, int [N].
        input_kind: what the first input is; None: tokens by its name, else as its shape and type say.

    Raises:
        DataError: too few rows are usable, or the input cannot be of that kind.
    """
    name = prepared.inputs[0].name
    first = np.asarray(rows[name])
    if input_kind is None and name in TOKEN_NAMES and first.dtype.kind in "iu" and first.ndim == 2:
        input_kind = "tokens"
    probabilities = prepared.probabilities(outputs)
    features = None if prepared.head is None else outputs[prepared.head.features]
    try:
        profile = Profile.fit(first, probabilities, features, kind=input_kind)
        if len(truth) < FEWEST_ROWS:
            return profile
        return calibrated(profile, first, probabilities, features, truth)
    except InsightsError as error:
        raise DataError(
            f"no profile can be made of the validation rows: {error}",
            "give more and varied rows, or another --input-kind",
        ) from error
