"""From amounts to money: prices and budgets as a person sets them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

GB, HOUR_S, HOUR_NS = 1e9, 3600.0, 3.6e12
#: Days of a month on average, by which the price of a month's storage is divided.
MONTH_DAYS = 365.25 / 12
Price = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prices(_Settings):
    """What each amount costs; all in one currency, which is the one of the teachers' prices too."""

    currency: str = Field(default="EUR", max_length=16, description="For people; nothing is converted.")
    device_hour: Price = Field(default=0.0, description="An hour in which a device runs the model.")
    uplink_gb: Price = Field(default=0.0, description="10^9 bytes from devices to the hub.")
    downlink_gb: Price = Field(default=0.0, description="10^9 bytes of releases from the hub to devices.")
    training_hour: Price = Field(default=0.0, description="An hour of a training run.")
    storage_gb_month: Price = Field(default=0.0, description="10^9 bytes that the hub keeps for a month.")
    cloud_thousand: Price = Field(
        default=0.0,
        description="1,000 answers of a model in the cloud, to compare with.",
    )


class Budget(_Settings):
    """What may be spent. Whatever it stops stays stopped until the period is over or the budget is raised."""

    channel: str | None = Field(default=None, max_length=64, description="Only this channel's costs; null: all.")
    model: str | None = Field(default=None, max_length=128, description="Only this model's costs; null: all.")
    period: Literal["day", "month"] = Field(default="day", description="Of the calendar, UTC.")
    money: Price = Field(description="In the prices' currency.")
    stops: tuple[Literal["escalations", "training"], ...] = Field(
        default=("escalations", "training"), max_length=2, description="What stops when it is spent."
    )


class CostSettings(_Settings):
    """Prices and budgets."""

    prices: Prices = Prices()
    budgets: tuple[Budget, ...] = Field(default=(), max_length=100)


@dataclass(frozen=True)
class Amounts:
    """What was used.

    Attributes:
        predictions: that devices have answered.
        device_ns: nanoseconds in which devices ran the model.
        uplink_bytes: of windows that devices have sent.
        downlink_bytes: of releases' files that devices have fetched.
        escalation_bytes: of inputs that devices have sent to teachers.
        sample_bytes: of inputs that devices have sent for retraining.
        teacher_calls: escalations that a teacher was asked about.
        teacher_money: what the teachers say that they cost.
        training_s: seconds of training runs that have ended.
        storage_bytes: that the hub kept on the day: of releases, windows, head statistics and samples.
    """

    predictions: int = 0
    device_ns: int = 0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    escalation_bytes: int = 0
    sample_bytes: int = 0
    teacher_calls: int = 0
    teacher_money: float = 0.0
    training_s: float = 0.0
    storage_bytes: int = 0

    @property
    def all_uplink_bytes(self) -> int:
        """All that devices have sent."""
        return self.uplink_bytes + self.escalation_bytes + self.sample_bytes

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def money(amounts: Amounts, prices: Prices) -> dict[str, float]:
    """What the amounts of one day cost, by what it was spent on, and ``total``.

    Storage is by the day: a month's price divided by the days of a month.
    """
    found = {
        "device": amounts.device_ns / HOUR_NS * prices.device_hour,
        "uplink": amounts.all_uplink_bytes / GB * prices.uplink_gb,
        "downlink": amounts.downlink_bytes / GB * prices.downlink_gb,
        "teachers": amounts.teacher_money,
        "training": amounts.training_s / HOUR_S * prices.training_hour,
        "storage": amounts.storage_bytes / GB * prices.storage_gb_month / MONTH_DAYS,
    }
    return {**found, "total": sum(found.values())}


def all_in_cloud(predictions: int, input_bytes: int | None, prices: Prices) -> float:
    """What the same predictions would have cost with every input sent to a model in the cloud.

    Args:
        predictions: their number.
        input_bytes: of one input as a tensor, without any compression; None where it varies: then none is counted.
        prices: the answer's and the uplink's are used.
    """
    sent = predictions * (input_bytes or 0) / GB * prices.uplink_gb
    return predictions / 1000.0 * prices.cloud_thousand + sent


def concerns(budget: Budget, channel: str, model: str) -> bool:
    """Whether costs of a model on a channel are within what a budget is about."""
    return budget.channel in (None, channel) and budget.model in (None, model)


def spent(budget: Budget, rows: Iterable[tuple[str, str, Amounts]], prices: Prices) -> float:
    """What of a budget is spent.

    Args:
        budget: the budget.
        rows: (channel, model, amounts of one day) of its period.
        prices: the prices.
    """
    return sum(money(amounts, prices)["total"] for channel, model, amounts in rows if concerns(budget, channel, model))


def added(rows: Iterable[Amounts]) -> Amounts:
    """The sum; of storage it is the sum of the days, as each day's costs are."""
    total = Amounts()
    for row in rows:
        total += row
    return total


def rounded(found: Mapping[str, float]) -> dict[str, float]:
    """Money for people: to a millionth."""
    return {name: round(value, 6) for name, value in found.items()}
