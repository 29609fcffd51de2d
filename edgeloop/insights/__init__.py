"""Windows that merge by addition, what normal looks like, and how far a window is from it.

    profile = Profile.fit(inputs, probabilities, features)      # once, from validation data
    window = Window.zero(profile.schema, release=digest)
    Observer(profile).observe(window, inputs, probabilities, features, latency_ns)
    report = compare(window, profile.reference, profile.schema)

Pure but for :meth:`Profile.save` and :meth:`Profile.load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.insights.aspects.latency import latency_quantile_ns
from edgeloop.insights.binning import Edges
from edgeloop.insights.errors import InsightsError
from edgeloop.insights.histograms import HISTOGRAMS
from edgeloop.insights.levels import coarsen, resolved
from edgeloop.insights.observer import Observer
from edgeloop.insights.profile import Profile
from edgeloop.insights.schema import WindowSchema
from edgeloop.insights.shares import drawn_rows, holdout_share
from edgeloop.insights.sizes import ArraySpec
from edgeloop.insights.window import Window
from edgeloop.lazy import lazily

if TYPE_CHECKING:
    from edgeloop.insights.drift import AspectDrift, DriftReport, compare
else:
    __getattr__ = lazily(__name__, "drift")

__all__ = [
    "HISTOGRAMS",
    "ArraySpec",
    "AspectDrift",
    "DriftReport",
    "Edges",
    "InsightsError",
    "Observer",
    "Profile",
    "Window",
    "WindowSchema",
    "coarsen",
    "compare",
    "drawn_rows",
    "holdout_share",
    "latency_quantile_ns",
    "resolved",
]
