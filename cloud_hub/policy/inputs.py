"""Which inputs leave devices, for a teacher's answer or for retraining, and what teachers may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import Field, model_validator

from cloud_hub.policy.base import Policy
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.protocol import ProtocolError
from edgeloop.sampling.policy import SamplesPolicy

_Model = TypeVar("_Model", bound=Policy)


def _readable(policy: _Model, part: type[EscalationPolicy | SamplesPolicy]) -> _Model:
    """A policy that devices read as they are told it; raises ValueError."""
    try:
        part.from_wire(policy.model_dump()).check()
    except ProtocolError as error:
        raise ValueError(str(error)) from error
    return policy


class TargetPolicy(Policy):
    """What the threshold is fitted for: an accuracy, or a share. Exactly one of the two."""

    accuracy: float | None = Field(
        default=None, gt=0, le=1, description="Of what clients get; the threshold with the least share that gives it."
    )
    share: float | None = Field(
        default=None, gt=0, le=1, description="Of the predictions that are sent on a usual day."
    )
    refit_s: float = Field(
        default=600.0, ge=1, le=1e9, description="Seconds between two fits from the teacher's answers, at least."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> TargetPolicy:
        if (self.accuracy is None) == (self.share is None):
            raise ValueError("a target has either accuracy or share")
        return self


class HardInputsPolicy(Policy):
    """Which inputs devices send to a teacher; the device's owner may allow less, and allows nothing by default."""

    mode: str = Field(default="off", description="`off`; `async`: the better answer comes later; `wait`: clients wait.")
    travels: str = Field(default="input", description="What leaves a device: `input`, `small`, `features`, `nothing`.")
    small_side: int = Field(default=224, description="Pixels of the longer side of a picture that travels `small`.")
    signals: tuple[str, ...] = Field(
        default=("confidence", "distance", "opinion"),
        description="What makes an input hard: `confidence`, `entropy`, `margin`, `distance`; and `opinion`: what the "
        "teacher's answers so far have taught the device.",
    )
    threshold: float = Field(default=0.3, description="Hardness in [0, 1] from which an input is likely to be sent.")
    target: TargetPolicy | None = Field(
        default=None,
        description="What the hub fits the threshold of each release for, in place of `threshold`: "
        '`{"accuracy": 0.95}` or `{"share": 0.1}`; null: `threshold` stands.',
    )
    softness: float = Field(default=0.1, description="Width of the step around the threshold.")
    floor: float = Field(default=0.02, description="Least probability of any input: audits of confident answers.")
    max_share: float = Field(default=0.2, description="Share of the predictions that may be sent.")
    per_hour: int | None = Field(default=None, description="Of one device, an hour; null: any number.")
    per_day: int | None = Field(default=None, description="Of one device, a day; null: any number.")
    bytes_per_hour: int | None = Field(default=None, description="Of one device, an hour; null: any number.")
    bytes_per_day: int | None = Field(default=None, description="Of one device, a day; null: any number.")
    cooldown_s: float = Field(default=5.0, description="Seconds without escalations after the hub could not answer.")
    deadline_ms: int = Field(default=1000, description="Milliseconds that a client waits in mode `wait`.")
    max_weight: float = Field(default=5.0, description="Largest weight of a label: 1 / probability, clipped.")

    @model_validator(mode="after")
    def _as_devices_read_it(self) -> HardInputsPolicy:
        if self.target is not None and self.target.share is not None:
            if self.target.share > self.max_share:
                raise ValueError(f"target.share is {self.target.share:g}, and max_share allows {self.max_share:g}")
            if self.target.share < self.floor:
                raise ValueError(f"target.share is {self.target.share:g}, and floor alone sends {self.floor:g}")
        return _readable(self, EscalationPolicy)

    def told(self, thresholds: Mapping[str, float], release: str | None) -> EscalationPolicy:
        """As devices are told it.

        Args:
            thresholds: digest of a release → threshold that was fitted to it.
            release: the current one; its threshold is that of devices which know of no other.
        """
        threshold = thresholds.get(release or "", self.threshold)
        plain = self.model_dump(exclude={"target"})
        return EscalationPolicy.from_wire({**plain, "threshold": threshold, "thresholds": thresholds})


class SamplingPolicy(Policy):
    """Which inputs devices keep for retraining; the device's owner may allow less, and allows nothing by default."""

    strategies: dict[str, float] = Field(
        default_factory=dict,
        description="Strategy → share of the samples that it may take: `random`, `uncertainty`, `diversity`, "
        "`balance`, `disagreement`, `drift`.",
    )
    travels: str = Field(default="input", description="What leaves a device: `input`, `small`, `features`.")
    small_side: int = Field(default=224, description="Pixels of the longer side of a picture that travels `small`.")
    per_day: int = Field(default=1000, description="Samples of one device, a day.")
    bytes_per_day: int = Field(default=64 << 20, description="Bytes of samples of one device, a day.")
    keep_s: float | None = Field(default=90 * 86_400.0, description="Seconds that the hub keeps them; null: for ever.")

    @model_validator(mode="after")
    def _as_devices_read_it(self) -> SamplingPolicy:
        return _readable(self, SamplesPolicy)


class TeachingPolicy(Policy):
    """Who answers what devices escalate, and what may be spent on it."""

    teachers: tuple[str, ...] = Field(
        default=(), max_length=8, description="Names of teachers; the next one answers when one cannot."
    )
    learn: bool = Field(default=True, description="Whether teachers' answers become labels that heads are fitted to.")
    spend_per_day: float | None = Field(default=None, ge=0, description="Money a day, in the prices' unit; null: any.")
    keep_inputs_s: float = Field(
        default=0.0,
        ge=0,
        le=1e10,
        description="How long the hub keeps the inputs, seconds; 0: until they are answered.",
    )
