"""The policy of a channel, all its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from cloud_hub.policy.base import Policy
from cloud_hub.policy.inputs import HardInputsPolicy, SamplingPolicy, TeachingPolicy
from cloud_hub.policy.observing import DriftPolicy, WindowsPolicy
from cloud_hub.policy.retraining import GatePolicy, RetrainingPolicy
from cloud_hub.policy.rolling_out import RolloutPolicy
from edgeloop.cascade import policy as cascade
from edgeloop.insights import policy as insights
from edgeloop.insights.policy import InsightsPolicy
from edgeloop.sampling import policy as sampling
from edgeloop.sampling.policy import SamplesPolicy


class ChannelPolicy(Policy):
    """The policy of a channel; whatever is left out has its default."""

    rollout: RolloutPolicy = RolloutPolicy()
    drift: DriftPolicy = DriftPolicy()
    retraining: RetrainingPolicy = RetrainingPolicy()
    gate: GatePolicy = GatePolicy()
    insights: WindowsPolicy = WindowsPolicy()
    escalation: HardInputsPolicy = HardInputsPolicy()
    teaching: TeachingPolicy = TeachingPolicy()
    samples: SamplingPolicy = SamplingPolicy()

    @model_validator(mode="after")
    def _trains_on_inputs(self) -> ChannelPolicy:
        if self.retraining.trainer == "command" and self.samples.strategies and self.samples.travels == "features":
            raise ValueError(
                "a training program gets the inputs of samples, and samples.travels is features: say input, or small"
            )
        return self

    def for_devices(
        self, thresholds: Mapping[str, float] | None = None, release: str | None = None
    ) -> dict[str, dict[str, Any]]:
        """What the channel's followers are told of it, by subject.

        Args:
            thresholds: digest of a release → threshold of escalation that was fitted to it.
            release: the current one.
        """
        rule = self.drift.model_dump(exclude={"interval_s"})
        windows = InsightsPolicy.from_wire({**self.insights.model_dump(), "drift": rule})
        return {
            insights.KEY: windows.to_wire(),
            cascade.KEY: self.escalation.told(thresholds or {}, release).to_wire(),
            sampling.KEY: SamplesPolicy.from_wire(self.samples.model_dump()).to_wire(),
        }
