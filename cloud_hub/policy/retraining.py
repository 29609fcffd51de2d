"""When a training run starts, who makes the candidate, and what it must show."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cloud_hub.policy.base import Policy

#: What may start a run by itself; ``cloud_hub.training.policy`` says when each does.
Cause = Literal["drift", "accuracy", "labels", "escalation", "schedule"]


class RetrainingPolicy(Policy):
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


class GatePolicy(Policy):
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
