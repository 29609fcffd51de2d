"""How releases spread over a channel's devices."""

from __future__ import annotations

from pydantic import Field, model_validator

from cloud_hub.policy.base import Policy


class Step(Policy):
    """One step of a rollout: a number of devices, or a share of the fleet. Exactly one of the two."""

    devices: int | None = Field(default=None, ge=1, description="Devices that take the candidate in this step.")
    share: float | None = Field(default=None, gt=0.0, le=1.0, description="Share of the devices, in (0, 1].")

    @model_validator(mode="after")
    def _one_of_two(self) -> Step:
        if (self.devices is None) == (self.share is None):
            raise ValueError("a step has either devices or share")
        return self


class RolloutPolicy(Policy):
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

    approvals: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Approvals that a rollout needs, by others than who published its release or started it.",
    )

    @model_validator(mode="after")
    def _reaches_all(self) -> RolloutPolicy:
        if self.steps[-1].share != 1.0:
            raise ValueError('the last step has to be {"share": 1.0}, else some devices never get the release')
        return self
