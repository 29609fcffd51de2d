"""What a channel's owner decides: how releases spread, what drift is, when to retrain, what a candidate must show.

These models are the schema of ``PUT /api/v1/channels/{channel}`` and of ``docs/reference/cloud-hub.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgeloop.cascade import policy as cascade
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.insights import policy as insights
from edgeloop.insights.aspects import ASPECTS
from edgeloop.insights.policy import InsightsPolicy
from edgeloop.protocol import ProtocolError
from edgeloop.protocol.fields import MAX_INTEGER
from edgeloop.sampling import policy as sampling
from edgeloop.sampling.policy import SamplesPolicy


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


class DriftPolicy(_Policy):
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


#: What may start a run by itself; ``cloud_hub.training.policy`` says when each does.
Cause = Literal["drift", "accuracy", "labels", "escalation", "schedule"]


class RetrainingPolicy(_Policy):
    """When a training run starts, and who makes the candidate."""

    #: Fields that say when a run starts; the others say how its candidate is made.
    WHEN: ClassVar[frozenset[str]] = frozenset(
        {
            *("trigger", "min_labels", "min_accuracy", "labels_each", "max_escalated", "lately_s"),
            *("every_s", "offset_s", "cooldown_s", "max_runs_per_day"),
        }
    )

    trainer: Literal["head", "command"] = Field(default="head", description="Who makes the candidate.")
    program: str = Field(
        default="", description="`command`: which of the hub's `training_programs` makes it; an operator names them."
    )
    trigger: tuple[Cause, ...] = Field(
        default=(),
        description="What starts a run by itself, any of `drift`, `accuracy`, `labels`, `escalation`, `schedule`; "
        "none, or `manual`: runs are started by hand.",
    )
    min_labels: int = Field(default=200, ge=1, description="Labels that a run needs, whatever starts it.")
    statistics: Literal["since_alarm", "all"] = Field(
        default="since_alarm", description="Which head statistics are used: since the drift alarm, or all there are."
    )
    min_accuracy: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="`accuracy`: a run starts when the accuracy is surely below this, by audits, else labels, "
        "else the estimate that needs none.",
    )
    labels_each: int = Field(default=2000, ge=1, description="`labels`: so many new ones since the last run start one.")
    max_escalated: float = Field(
        default=0.3, gt=0, le=1, description="`escalation`: a run starts when this share of the answers was escalated."
    )
    lately_s: float = Field(
        default=3600.0, gt=0, description="`accuracy` and `escalation` are of so many seconds before now."
    )
    every_s: float = Field(default=86_400.0, ge=1, description="`schedule`: seconds between two runs.")
    offset_s: float = Field(
        default=0.0, ge=0, description="`schedule`: seconds after midnight, UTC, of the first run of a day."
    )
    half_life_s: float | None = Field(
        default=None,
        gt=0,
        description="Age, beside the newest label, at which a label counts half; null: all count the same.",
    )
    max_group_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Of all labels, what one group of devices may weigh; those that contradict the others are left out."
        " 1: every label counts the same, whoever gave it.",
    )
    cooldown_s: float = Field(default=3600.0, ge=0, description="Seconds between two runs.")
    max_runs_per_day: int = Field(default=24, ge=1, description="Runs of a channel in 24 hours.")

    @field_validator("trigger", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        several = [value] if isinstance(value, str) else value
        return [] if several == ["manual"] else several

    @model_validator(mode="after")
    def _can_fire(self) -> RetrainingPolicy:
        if "accuracy" in self.trigger and self.min_accuracy is None:
            raise ValueError("the trigger accuracy needs min_accuracy")
        return self


class GatePolicy(_Policy):
    """What a candidate must show before it is rolled out."""

    validation_floor: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Least accuracy on the package's validation set; 0 for a fleet that moved to a new world for good.",
    )
    validation_class_floor: float = Field(
        default=0.0, ge=0, le=1, description="Least accuracy of any one class of the validation set."
    )
    min_improvement: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Least relative improvement of the held-out error over the current release's; 0: any.",
    )
    class_floor: float = Field(
        default=0.0, ge=0, le=1, description="Least accuracy of any one class of the held-out feedback."
    )
    segment_floor: float = Field(
        default=0.0, ge=0, le=1, description="Least accuracy of any one segment of the held-out feedback."
    )
    max_latency_ratio: float | None = Field(
        default=1.5, ge=1, description="Longest time of an answer, as a multiple of the current release's; null: any."
    )
    max_size_ratio: float | None = Field(
        default=1.5, ge=1, description="Largest size of the files, as a multiple of the current release's; null: any."
    )


class PrivacyPolicy(_Policy):
    """How little a device may tell of any one prediction; the device's owner may ask for less."""

    epsilon: float = Field(
        default=3.0, ge=0.01, le=100, description="What a period may tell of a prediction and a label of each window."
    )
    delta: float = Field(default=1e-6, ge=1e-15, le=0.01, description="Probability with which it may tell more.")
    days: float = Field(default=1.0, ge=0.001, le=3660, description="Length of a period, days.")


class WindowsPolicy(_Policy):
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


_Model = TypeVar("_Model", bound=_Policy)


def _readable(policy: _Model, part: type[EscalationPolicy | SamplesPolicy]) -> _Model:
    """A policy that devices read as they are told it; raises ValueError."""
    try:
        part.from_wire(policy.model_dump()).check()
    except ProtocolError as error:
        raise ValueError(str(error)) from error
    return policy


class TargetPolicy(_Policy):
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


class HardInputsPolicy(_Policy):
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


class SamplingPolicy(_Policy):
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


class TeachingPolicy(_Policy):
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


class ChannelPolicy(_Policy):
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
