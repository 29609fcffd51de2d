"""What a channel's owner decides: how releases spread, what drift is, when to retrain, what a candidate must show.

These models are the schema of ``PUT /api/v1/channels/{channel}`` and of ``docs/reference/cloud-hub.md``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Policy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Policy):
    """One step of a rollout: a number of devices, or a share of the fleet. Exactly one of the two."""

    devices: int | None = Field(default=None, ge=1, description="Devices that take the candidate in this step.")
    share: float | None = Field(default=None, gt=0.0, le=1.0, description="Share of the devices, in (0, 1].")

    @model_validator(mode="after")
    def _one_of_two(self) -> Step:
        if (self.devices is None) == (self.share is None):
            raise ValueError("a step has either devices or share")
        return self


class RolloutPolicy(_Policy):
    """How a candidate spreads over the channel's devices."""

    steps: tuple[Step, ...] = Field(
        default=(Step(devices=1), Step(share=0.1), Step(share=0.5), Step(share=1.0)),
        min_length=1,
        max_length=32,
        description="The steps in order; the last one has to reach every device.",
    )
    bake_s: float = Field(default=60.0, ge=0, description="Seconds that a finished step is watched before the next.")
    timeout_s: float = Field(
        default=3600.0, gt=0, description="Seconds after which a step that is not done sends the rollout back."
    )
    max_failure_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The rollout goes back when more than this share of a step's devices fail.",
    )
    min_done_share: float = Field(
        default=0.9, gt=0, le=1, description="Share of a step's answering devices that must run the candidate."
    )

    @model_validator(mode="after")
    def _reaches_all(self) -> RolloutPolicy:
        if self.steps[-1].share != 1.0:
            raise ValueError('the last step has to be {"share": 1.0}, else some devices never get the release')
        return self


class DriftPolicy(_Policy):
    """What counts as drift."""

    alpha: float = Field(default=0.001, gt=0, lt=0.5, description="Chance of a false alarm of one comparison.")
    min_effect: float = Field(
        default=0.15, ge=0, le=1, description="Smallest share of the mass that has to have moved (total variation)."
    )
    min_predictions: int = Field(default=500, ge=1, description="Windows are merged until they hold this many.")
    interval_s: float = Field(default=60.0, gt=0, description="Seconds between two comparisons.")
    consecutive: int = Field(default=2, ge=1, description="Drifted comparisons in a row that raise an alarm.")


class RetrainingPolicy(_Policy):
    """When a training run starts."""

    trigger: Literal["drift", "manual"] = Field(default="manual", description="What starts a run by itself.")
    min_labels: int = Field(default=200, ge=1, description="Labels that have to have arrived.")
    statistics: Literal["since_alarm", "all"] = Field(
        default="since_alarm", description="Which head statistics are used: since the drift alarm, or all there are."
    )
    cooldown_s: float = Field(default=3600.0, ge=0, description="Seconds between two runs.")
    max_runs_per_day: int = Field(default=24, ge=1, description="Runs of a channel in 24 hours.")


class GatePolicy(_Policy):
    """What a candidate must show before it is rolled out."""

    validation_floor: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Least accuracy on the package's validation set; 0 for a fleet that moved to a new world for good.",
    )
    min_improvement: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Least relative improvement of the held-out error over the current release's; 0: any.",
    )


class ChannelPolicy(_Policy):
    """The policy of a channel; whatever is left out has its default."""

    rollout: RolloutPolicy = RolloutPolicy()
    drift: DriftPolicy = DriftPolicy()
    retraining: RetrainingPolicy = RetrainingPolicy()
    gate: GatePolicy = GatePolicy()
