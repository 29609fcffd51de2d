"""The training programs that an operator lets a hub start: what each is, and what it may take of the machine.

They are settings, never a part of a policy: whoever may change a channel chooses among programs, and starts nothing
else.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
Value = bool | int | float | str
"""A parameter's value."""


class _Setting(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parameter(_Setting):
    """The values that a search may give to a parameter: some choices, or a range."""

    choices: tuple[Value, ...] = Field(default=(), description="Values to choose from; empty: a range.")
    low: float | None = Field(default=None, description="Least value of a range.")
    high: float | None = Field(default=None, description="Largest value of a range.")
    log: bool = Field(default=False, description="Whether the range is searched by its logarithm.")
    whole: bool = Field(default=False, description="Whether the range holds whole numbers only.")

    @model_validator(mode="after")
    def _choices_or_a_range(self) -> Parameter:
        ranged = self.low is not None and self.high is not None
        if bool(self.choices) == ranged or (self.low is None) != (self.high is None):
            raise ValueError("a parameter has either choices, or low and high")
        if self.low is not None and self.high is not None:
            if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
                raise ValueError("low has to be below high")
            if self.log and self.low <= 0:
                raise ValueError("a range that is searched by its logarithm begins above 0")
            if self.whole and not (self.low.is_integer() and self.high.is_integer()):
                raise ValueError("a range of whole numbers begins and ends with one")
        return self


class Search(_Setting):
    """How the values of parameters are found: trial after trial, by what each says of its ``result``."""

    trials: int = Field(default=10, ge=1, le=1000, description="Times that the program runs.")
    maximise: bool = Field(default=True, description="Whether a larger result is a better one.")
    parameters: dict[str, Parameter] = Field(min_length=1, description="Parameter → what it may be.")


class TrainingProgram(_Setting):
    """A training program."""

    command: tuple[str, ...] = Field(min_length=1, description="Program and arguments; no shell reads them.")
    runner: Literal["child", "ray"] = Field(default="child", description="Where it runs: `child` of the hub, or `ray`.")
    environment: dict[str, str] = Field(default={}, description="Variables, besides the few that are passed on.")
    parameters: dict[str, Value] = Field(default={}, description="Parameters that it always gets.")
    search: Search | None = Field(default=None, description="A search of further parameters; needs Optuna.")
    time_s: float = Field(default=3600.0, gt=0, description="What a run may take in all, seconds.")
    memory_bytes: int = Field(default=4 << 30, ge=1 << 20, description="What its processes may hold in memory.")
    disk_bytes: int = Field(default=8 << 30, ge=1 << 20, description="What its files may hold.")
    spare_bytes: int = Field(default=1 << 30, ge=0, description="What has to stay free on the hub's disk.")
    log_bytes: int = Field(default=4 << 20, ge=1 << 10, description="What is kept of its output.")
    grace_s: float = Field(default=5.0, ge=0, le=300, description="Between SIGTERM and SIGKILL, seconds.")
    cost_per_hour: float = Field(default=0.0, ge=0, description="What an hour costs, in the unit of your prices.")
    max_cost: float | None = Field(default=None, gt=0, description="What a run may cost; empty: any.")
    cpus: float = Field(default=1.0, ge=0, description="Processors that it gets on Ray.")
    gpus: float = Field(default=0.0, ge=0, description="Accelerators that it gets on Ray.")

    @model_validator(mode="after")
    def _settable(self) -> TrainingProgram:
        if self.max_cost is not None and self.cost_per_hour == 0:
            raise ValueError("max_cost needs cost_per_hour")
        searched = set() if self.search is None else set(self.search.parameters)
        for name in (*self.parameters, *searched):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r:.80} is no name of a parameter")
        if both := searched & set(self.parameters):
            raise ValueError(f"{min(both)} is both a parameter and searched")
        return self

    @property
    def seconds(self) -> float:
        """What a run may take: its time, or what it may cost, whichever is less."""
        return self.time_s if self.max_cost is None else min(self.time_s, self.max_cost / self.cost_per_hour * 3600)

    def cost(self, seconds: float) -> float:
        """What so much time costs."""
        return seconds / 3600 * self.cost_per_hour
