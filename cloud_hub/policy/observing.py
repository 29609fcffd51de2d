"""What devices tell of their predictions, and what of it counts as drift."""

from __future__ import annotations

from pydantic import Field, model_validator

from cloud_hub.policy.base import Policy
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.policy import InsightsPolicy
from edgeloop.protocol import ProtocolError
from edgeloop.protocol.fields import MAX_INTEGER


class DriftPolicy(Policy):
    """What counts as drift."""

    alpha: float = Field(default=0.001, gt=0, lt=0.5, description="Chance that one comparison errs, at most.")
    false_alarms_per_year: float | None = Field(
        default=12.0,
        ge=1e-9,
        le=1e9,
        description="False alarms of a release on the channel in a year, at most; null: only alpha counts.",
    )
    min_effect: float = Field(
        default=0.15, ge=0, le=1, description="Smallest share of the mass that has to have moved (total variation)."
    )
    min_predictions: int = Field(
        default=500, ge=1, le=MAX_INTEGER, description="Windows are merged until they hold this many."
    )
    interval_s: float = Field(default=60.0, gt=0, description="Seconds between two comparisons.")
    consecutive: int = Field(default=2, ge=1, le=1000, description="Drifted comparisons in a row that raise an alarm.")


class PrivacyPolicy(Policy):
    """How little a device may tell of any one prediction; the device's owner may ask for less."""

    epsilon: float = Field(
        default=3.0, ge=0.01, le=100, description="What a period may tell of a prediction and a label of each window."
    )
    delta: float = Field(default=1e-6, ge=1e-15, le=0.01, description="Probability with which it may tell more.")
    days: float = Field(default=1.0, ge=0.001, le=3660, description="Length of a period, days.")


class WindowsPolicy(Policy):
    """What devices put into their windows, and how much of it they send; the device's owner may allow less."""

    aspects: tuple[str, ...] | None = Field(
        default=None, description="Aspects that windows hold, besides counts and classes; null: all."
    )
    bytes_per_day: int | None = Field(
        default=None, description="Bytes of insights that a device sends in a day; null: any."
    )
    segment_field: str | None = Field(
        default=None, description="Parameter of requests by whose values windows are kept apart; null: none."
    )
    segment_values: tuple[str, ...] = Field(
        default=(), description="Those values, 8 at most; none: the first 8 that a device sees. The rest is `other`."
    )
    min_group: int = Field(default=0, description="Predictions that a window holds at least before it leaves.")
    audit_share: float = Field(
        default=0.0, description="Share of the answers, drawn at random, whose true label is asked for, in [0, 1]."
    )
    privacy: PrivacyPolicy | None = Field(default=None, description="Noise that devices add; null: none.")

    @model_validator(mode="after")
    def _as_devices_read_it(self) -> WindowsPolicy:
        try:
            InsightsPolicy.from_wire(self.model_dump(), "insights")
        except ProtocolError as error:
            raise ValueError(str(error)) from error
        known = [aspect.name for aspect in ASPECTS]
        if unknown := [name for name in self.aspects or () if name not in known]:
            raise ValueError(f"there is no aspect {unknown[0]!r:.80}; there are {', '.join(known)}")
        if self.segment_values and self.segment_field is None:
            raise ValueError("segment_values need a segment_field")
        return self
