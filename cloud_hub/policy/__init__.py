"""What a channel's owner decides: how releases spread, what drift is, when to retrain, what a candidate must show.

These models are the schema of ``PUT /api/v1/channels/{channel}`` and of ``docs/reference/cloud-hub.md``.
"""

from __future__ import annotations

from cloud_hub.policy.channel import ChannelPolicy
from cloud_hub.policy.inputs import HardInputsPolicy, SamplingPolicy, TargetPolicy, TeachingPolicy
from cloud_hub.policy.observing import DriftPolicy, PrivacyPolicy, WindowsPolicy
from cloud_hub.policy.retraining import Cause, GatePolicy, RetrainingPolicy
from cloud_hub.policy.rolling_out import RolloutPolicy, Step

__all__ = [
    "Cause",
    "ChannelPolicy",
    "DriftPolicy",
    "GatePolicy",
    "HardInputsPolicy",
    "PrivacyPolicy",
    "RetrainingPolicy",
    "RolloutPolicy",
    "SamplingPolicy",
    "Step",
    "TargetPolicy",
    "TeachingPolicy",
    "WindowsPolicy",
]
