"""Costs of a hub: the ledger kept up to date, what it comes to, and what a budget that is spent has stopped."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from pydantic import ValidationError
from sqlalchemy import Connection, select

from cloud_hub.access import audit
from cloud_hub.costs import ledger
from cloud_hub.costs.ledger import DAY_S, Key
from cloud_hub.costs.prices import Amounts, CostSettings, added, all_in_cloud, concerns, money, rounded, spent
from cloud_hub.errors import BadRequest, NotFound
from cloud_hub.insights_store import Additions
from cloud_hub.records.cost_tables import cost_settings
from cloud_hub.records.database import Database, add_rows
from cloud_hub.records.tables import devices
from cloud_hub.releases import Releases
from edgeloop.protocol.inputs import DTYPES

#: The bytes that are kept are measured so often, seconds: windows are many.
STORAGE_EVERY_S = 600.0
#: After midnight the day before is measured for so long: a transaction may have taken its time.
LATE_S = 3600.0
NAME = "costs"


@dataclass(frozen=True)
class Spent:
    """A budget, what of it is spent in its present period, and whether that is all of it."""

    budget: Mapping[str, Any]
    money: float
    over: bool


class Costs:
    """The costs of a hub.

    Args:
        db: the records.
        releases: knows a release's model.
        clock: unix seconds.
    """

    def __init__(self, db: Database, releases: Releases, *, clock: Any = time.time) -> None:
        self._db, self._releases, self._clock = db, releases, clock
        self._lock = threading.Lock()
        self._fetched: Counter[str] = Counter()
        self._model = lru_cache(4096)(self._find_model)
        self._settings = self._read_settings()
        self._stored_at = float("-inf")
        #: Whatever is stopped: (what, channel) → why; the channel is None for all of them.
        self._stopped: Mapping[tuple[str, str | None], str] = {}
        self._spent: Sequence[Spent] = ()

    # ── what counts ───────────────────────────────────────────────────────────────────────────

    def count(
        self, connection: Connection, additions: Additions, uplink: Mapping[tuple[str, str], int], now: float
    ) -> None:
        """Add what windows tell; in the transaction that counts them."""
        if additions.rows:
            ledger.count(connection, additions, uplink, self._model_of, _day(now))

    def fetched(self, device: str, size: int) -> None:
        """A device fetches a file of a release, or the rest of one; written with the next tick.

        Args:
            device: its name; "" where the hub does not know who asks.
            size: bytes.
        """
        with self._lock:
            self._fetched[device] += size

    def tick(self) -> None:
        """Bring the ledger up to date, and see which budgets are spent."""
        now = self._clock()
        with self._lock:
            fetched, self._fetched = self._fetched, Counter()
        day = _day(now)
        with self._db.begin() as connection:
            if fetched:
                ledger.count_downlink(connection, self._by_channel(connection, fetched), day)
            storage = None
            if now - self._stored_at >= STORAGE_EVERY_S or _day(self._stored_at) != day:
                storage, self._stored_at = ledger.stored(connection, self._model_of), now
            ledger.measure(connection, day, self._model_of, storage)
            if now % DAY_S < LATE_S:
                ledger.measure(connection, day - 1, self._model_of, None)
            self._judge(connection, now)

    # ── what a person says ────────────────────────────────────────────────────────────────────

    @property
    def settings(self) -> CostSettings:
        """Prices and budgets."""
        return self._settings

    def configure(self, settings: Any) -> CostSettings:
        """Replace prices and budgets; what is left out gets its default.

        Raises:
            BadRequest: which field is wrong, and why.
        """
        try:
            parsed = CostSettings.model_validate(settings)
        except ValidationError as error:
            problem = f"the prices are refused: {error}"[:2000]
            raise BadRequest(problem, "see docs/how-to/know-what-it-costs.md") from error
        with self._db.begin() as connection:
            row = (NAME, parsed.model_dump_json())
            add_rows(connection, cost_settings, ("name", "document_json"), [row], replaced=("document_json",))
            before, after = self._settings.model_dump(mode="json"), parsed.model_dump(mode="json")
            audit.changed(connection, "costs.settings", before, after, about=NAME, at=self._clock())
            self._settings = parsed
            self._judge(connection, self._clock())
        return parsed

    def stopped(self, what: str, channel: str) -> str:
        """Why there may be no more of something on a channel until its budget's period is over, or "".

        Args:
            what: ``escalations`` or ``training``.
            channel: the channel.
        """
        stopped = self._stopped
        return stopped.get((what, None)) or stopped.get((what, channel)) or ""

    # ── what is told ──────────────────────────────────────────────────────────────────────────

    def report(self, days: int, channel: str | None = None, model: str | None = None) -> dict[str, Any]:
        """Amounts and money by day, channel and model; what the same traffic would have cost all in the cloud.

        Args:
            days: the latest, today among them.
            channel: only this one's; what belongs to no channel is then left out.
            model: only this one's.
        """
        self.tick()
        now, prices = self._clock(), self._settings.prices
        with self._db.read() as connection:
            found = ledger.read(connection, _day(now) - days + 1, _day(now))
        found = [row for row in found if channel in (None, row[1]) and model in (None, row[2])]
        rows = [{**_where(day, on, of), **self._told(amounts, of)} for day, on, of, amounts in found]
        cloud = sum(row["all_in_cloud"] for row in rows)
        total = added(amounts for *_, amounts in found)
        return {
            "currency": prices.currency,
            "days": rows,
            "total": {**asdict(total), "money": rounded(money(total, prices)), "all_in_cloud": round(cloud, 6)},
            "budgets": [asdict(each) for each in self._spent],
            "unknown": self._unknown({row[2] for row in found if row[3].predictions}),
        }

    def _told(self, amounts: Amounts, model: str) -> dict[str, Any]:
        prices = self._settings.prices
        cloud = all_in_cloud(amounts.predictions, self._input_bytes(model), prices)
        return {**asdict(amounts), "money": rounded(money(amounts, prices)), "all_in_cloud": round(cloud, 6)}

    def _unknown(self, models: set[str]) -> list[str]:
        varying = sorted(model for model in models if self._input_bytes(model) is None)
        told = "inputs of {} have no fixed size: in the comparison with the cloud, sending them costs nothing"
        return [told.format(model or "releases that are gone") for model in varying]

    # ── how ───────────────────────────────────────────────────────────────────────────────────

    def _judge(self, connection: Connection, now: float) -> None:
        """See what is spent of each budget, and so what is stopped."""
        settings, day = self._settings, _day(now)
        first = _first_of_month(now)
        rows = ledger.read(connection, first, day) if settings.budgets else []
        told, stopped = [], dict[tuple[str, str | None], str]()
        for budget in settings.budgets:
            start = day if budget.period == "day" else first
            within = [(channel, model, amounts) for on, channel, model, amounts in rows if on >= start]
            used = spent(budget, within, settings.prices)
            over = used >= budget.money
            told.append(Spent(budget.model_dump(mode="json"), round(used, 6), over))
            if not over:
                continue
            channels: set[str | None] = {budget.channel}
            if budget.channel is None and budget.model is not None:  # the channels on which the model costs something
                channels = {channel for channel, model, _ in within if channel and concerns(budget, channel, model)}
            why = f"the budget of {budget.money:g} {settings.prices.currency} a {budget.period} is spent: {used:.2f}"
            stopped |= {(what, channel): why for what in budget.stops for channel in channels}
        self._spent, self._stopped = told, stopped

    def _by_channel(self, connection: Connection, fetched: Mapping[str, int]) -> dict[Key, int]:
        """Whose devices these are, and what they fetch: what they are updating to, else what they run."""
        found: Counter[Key] = Counter()
        for device, size in fetched.items():
            row = connection.execute(select(devices).where(devices.c.device == device)).first()
            if row is None:
                found["", ""] += size
            else:
                found[row.channel or "", self._model_of(row.update_release or row.release or "")] += size
        return dict(found)

    def _model_of(self, release: str) -> str:
        """The name of a release's model; "" for a release that this hub does not have."""
        try:
            return self._model(release)
        except NotFound:
            return ""

    def _find_model(self, release: str) -> str:
        return self._releases.get(release).name

    def _input_bytes(self, model: str) -> int | None:
        """Bytes of one row of a model's inputs, by its newest release; None where they vary."""
        newest = next((release for release in self._releases.all() if release.name == model), None)
        if newest is None:
            return None
        size = 0
        for spec in self._releases.open(newest.digest).meta.inputs:
            row = spec.shape[1:]
            if spec.datatype not in DTYPES or any(length < 0 for length in row):
                return None
            size += int(np.prod(row, dtype=np.int64)) * np.dtype(DTYPES[spec.datatype]).itemsize
        return size

    def _read_settings(self) -> CostSettings:
        with self._db.read() as connection:
            row = connection.execute(select(cost_settings).where(cost_settings.c.name == NAME)).first()
        return CostSettings() if row is None else CostSettings.model_validate(json.loads(row.document_json))


def _day(at: float) -> int:
    return int(at // DAY_S) if at > 0 else 0


def _first_of_month(at: float) -> int:
    return _day(datetime.fromtimestamp(at, UTC).replace(day=1).timestamp())


def _where(day: int, channel: str, model: str) -> dict[str, str]:
    return {"day": f"{datetime.fromtimestamp(day * DAY_S, UTC):%Y-%m-%d}", "channel": channel, "model": model}
