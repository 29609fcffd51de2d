"""What a channel's or a device's owner asks of the noise. It travels in the policy of insights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from edgeloop.protocol.fields import Real
from edgeloop.protocol.parts import Part
from edgeloop.records import dataclass

if TYPE_CHECKING:
    from edgeloop.insights.profile import Profile

#: Longest feature vector in sums, over the root mean square length of the validation data's: longer ones are shortened.
CLIP = 1.5


@dataclass(frozen=True)
class PrivacyRule(Part):
    """A budget for a period.

    Attributes:
        epsilon: what a period may tell of one prediction and one label of each of its windows; 0.01 to 100.
        delta: probability with which it may tell more.
        days: length of a period.
    """

    epsilon: Annotated[float, Real(0.01, 100.0)] = 3.0
    delta: Annotated[float, Real(1e-15, 0.01)] = 1e-6
    days: Annotated[float, Real(0.001, 3660.0)] = 1.0

    def windows(self, window_s: float, segments: int) -> int:
        """How many windows a period is expected to have.

        Args:
            window_s: length of one, seconds.
            segments: windows that are open side by side.
        """
        return max(1, math.ceil(self.days * 86_400.0 / window_s) * segments)


def clip_of(profile: Profile) -> float | None:
    """Longest feature vector in the sums of a release; None where its profile knows of no features."""
    reference = profile.reference
    squares = float(reference.arrays["feature_squares"].sum())
    return CLIP * math.sqrt(squares / reference.predictions) if squares > 0.0 else None


def stricter(one: PrivacyRule | None, other: PrivacyRule | None) -> PrivacyRule | None:
    """What keeps both promises: the smaller budget for the longer time."""
    if one is None or other is None:
        return one or other
    return replace(
        one,
        epsilon=min(one.epsilon, other.epsilon),
        delta=min(one.delta, other.delta),
        days=max(one.days, other.days),
    )
