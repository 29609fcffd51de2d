"""``/api/v1/costs``: what was used and what that costs, by day, channel and model; prices and budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from cloud_hub.access.principals import Principal
from cloud_hub.api.errors import responses
from cloud_hub.api.guard import principal
from cloud_hub.costs.prices import CostSettings
from cloud_hub.errors import BadRequest, Forbidden

if TYPE_CHECKING:
    from cloud_hub.app import Hub

Who = Annotated[Principal, Depends(principal)]
_MONEY = {"device": 0.4, "uplink": 0.01, "downlink": 0.002, "teachers": 1.2, "training": 0.1, "storage": 0.03}


class AmountsAnswer(BaseModel):
    """What was used, and what that costs."""

    predictions: int = Field(description="That devices have answered.", examples=[86_400])
    device_ns: int = Field(description="Nanoseconds in which devices ran the model, at most.")
    uplink_bytes: int = Field(description="Of windows that devices have sent.")
    downlink_bytes: int = Field(description="Of releases' files that devices have fetched.")
    escalation_bytes: int = Field(description="Of inputs that devices have sent to teachers.")
    sample_bytes: int = Field(description="Of inputs that devices have sent for retraining.")
    teacher_calls: int = Field(description="Escalations that a teacher was asked about.")
    teacher_money: float = Field(description="What the teachers say that they cost.")
    training_s: float = Field(description="Seconds of training runs that have ended.")
    storage_bytes: int = Field(description="That the hub kept on the day; in a sum: of all days.")
    money: dict[str, float] = Field(description="By what it was spent on, and total.", examples=[_MONEY])
    all_in_cloud: float = Field(description="What the same predictions would have cost in the cloud.", examples=[17.3])


class DayAnswer(AmountsAnswer):
    """A day of a model on a channel; each is empty where it is not known or does not matter."""

    day: str = Field(examples=["2026-11-26"])
    channel: str = Field(examples=["stable"])
    model: str = Field(examples=["digits"])


class BudgetAnswer(BaseModel):
    """A budget, and what of it is spent in its present period."""

    budget: dict[str, Any]
    money: float
    over: bool = Field(description="Whether it stops what it is to stop.")


class CostsAnswer(BaseModel):
    """Costs."""

    currency: str = Field(examples=["EUR"])
    days: list[DayAnswer]
    total: AmountsAnswer
    budgets: list[BudgetAnswer]
    unknown: list[str] = Field(description="What is not in the figures, and why.")


def router(hub: Hub) -> APIRouter:
    """The addresses of costs."""
    routes = APIRouter(prefix="/costs", tags=["costs"])

    @routes.get("", responses=responses(Forbidden))
    def costs(
        who: Who,
        channel: Annotated[str | None, Query(examples=["stable"])] = None,
        model: Annotated[str | None, Query(examples=["digits"])] = None,
        days: Annotated[int, Query(ge=1, le=3660, description="The latest, today among them.")] = 30,
    ) -> CostsAnswer:
        """Amounts and money by day (UTC), channel and model."""
        if who.models is not None and not who.may_touch_model(model):
            raise Forbidden("you are limited to some models: say which one is meant", "?model= one of yours")
        found = hub.costs.report(days, channel, model)
        found["budgets"] = [each for each in found["budgets"] if _theirs(each["budget"], who)]
        return CostsAnswer.model_validate(found)

    @routes.get("/settings")
    def settings() -> CostSettings:
        """Prices and budgets."""
        return hub.costs.settings

    @routes.put("/settings", responses=responses(BadRequest))
    def configure(body: CostSettings) -> CostSettings:
        """Replace prices and budgets; what is left out gets its default."""
        return hub.costs.configure(body)

    return routes


def _theirs(budget: dict[str, Any], who: Principal) -> bool:
    """Whether somebody may see a budget: one of everything is nobody's who is limited."""
    return (who.channels is None or budget["channel"] in who.channels) and (
        who.models is None or budget["model"] in who.models
    )
