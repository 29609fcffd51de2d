"""An aspect of a comparison, as the answers of drift and of alarms show it."""

from __future__ import annotations

from pydantic import BaseModel, Field

MOVED = "input mean: 64 % of the mass moved downward"


class AspectAnswer(BaseModel):
    """One aspect of a window against the reference's."""

    name: str = Field(examples=["inputs[0]"])
    statistic: float = Field(
        description="G of the two histograms; of features the largest deviate of a mean.", examples=[412.7]
    )
    threshold: float = Field(
        description="What chance exceeds with the policy's alpha, all tests together.", examples=[38.1]
    )
    p_value: float = Field(
        default=1.0, description="How often chance exceeds the statistic, this aspect alone.", examples=[3.1e-12]
    )
    effect: float = Field(description="Share of the mass that moved, 0…1.", examples=[0.64])
    direction: str = Field(
        default="", description="up, down or both ways; mix where there is no order.", examples=["down"]
    )
    drifted: bool
    moved: str = Field(examples=[MOVED])


class MovedAnswer(AspectAnswer):
    """An aspect that moved, and against what."""

    against: str = Field(examples=["profile"])
