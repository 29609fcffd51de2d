"""The ledger of amounts: added up in the transaction that counts a window, or measured from what other parts keep."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from sqlalchemy import Connection, func, select

from cloud_hub.costs.prices import Amounts
from cloud_hub.insights_store import Additions
from cloud_hub.records.cost_tables import ADDED, MEASURED, cost_days
from cloud_hub.records.database import add_rows
from cloud_hub.records.decision_tables import training_runs
from cloud_hub.records.sample_tables import samples
from cloud_hub.records.tables import head_windows, releases, windows
from cloud_hub.records.teaching_tables import escalations
from cloud_hub.releases import parse_index
from edgeloop.insights.aspects.latency import BINS, LOG_GAMMA, LOWEST_NS

DAY_S = 86_400.0
Key = tuple[str, str]
"""Channel and model."""
#: Nanoseconds in the middle of each bin of a window's latencies, float64 [462]: `edgeloop.insights.aspects.latency`.
_MIDDLES = LOWEST_NS * 2 * np.exp(np.arange(BINS) * LOG_GAMMA) / (math.exp(LOG_GAMMA) + 1)


def count(
    connection: Connection,
    additions: Additions,
    uplink: Mapping[tuple[str, str], int],
    model_of: Callable[[str], str],
    day: int,
) -> None:
    """Add what windows tell, in the transaction that counts them.

    A request's run counts for each of its rows, since that is how a window holds it: of requests with several rows it
    is more than the device has worked.

    Args:
        connection: the transaction's.
        additions: the windows.
        uplink: (channel, release) → bytes of the messages that brought them.
        model_of: release → name of its model.
        day: on which they are counted.
    """
    sums: dict[Key, list[int]] = defaultdict(lambda: [0, 0, 0])
    for (channel, release, _, _), addition in additions.rows.items():
        row, run = sums[channel, model_of(release)], addition.window.arrays.get("latency_run")
        row[0] += addition.window.predictions
        row[1] += 0 if run is None else max(0, round(float(_MIDDLES @ run)))  # noise may make it less than nothing
    for (channel, release), size in uplink.items():
        sums[channel, model_of(release)][2] += size
    names = ("predictions", "device_ns", "uplink_bytes")
    rows = [(day, *key, *amounts) for key, amounts in sums.items()]
    add_rows(connection, cost_days, ("day", "channel", "model", *names), rows, raised=names)


def count_downlink(connection: Connection, fetched: Mapping[Key, int], day: int) -> None:
    """Add bytes that devices have fetched, by channel and model."""
    rows = [(day, *key, size) for key, size in fetched.items()]
    names = ("day", "channel", "model", "downlink_bytes")
    add_rows(connection, cost_days, names, rows, raised=("downlink_bytes",))


def measure(
    connection: Connection, day: int, model_of: Callable[[str], str], storage: Mapping[Key, int] | None
) -> None:
    """Write what other parts' records say of a day; what was written for it before is replaced.

    Args:
        connection: a writing transaction.
        day: the day.
        model_of: release → name of its model.
        storage: bytes that are kept now; None leaves what is there.
    """
    start, end = day * DAY_S, (day + 1) * DAY_S
    found: dict[Key, dict[str, float]] = defaultdict(lambda: dict.fromkeys(MEASURED, 0))
    asked = escalations.c
    query = select(
        asked.channel,
        asked.release,
        func.sum(asked.bytes).label("bytes"),
        func.count().filter(asked.teacher != "").label("calls"),
        func.sum(asked.cost).label("cost"),
    ).where(asked.received >= start, asked.received < end)
    for row in connection.execute(query.group_by(asked.channel, asked.release)):
        into = found[row.channel, model_of(row.release)]
        into["escalation_bytes"] += row.bytes
        into["teacher_calls"] += row.calls
        into["teacher_money"] += row.cost
    taken = samples.c
    query = select(taken.channel, taken.release, func.sum(taken.bytes).label("bytes"))
    query = query.where(taken.received >= start, taken.received < end).group_by(taken.channel, taken.release)
    for row in connection.execute(query):
        found[row.channel, model_of(row.release)]["sample_bytes"] += row.bytes
    runs = training_runs.c
    ended = select(runs.channel, runs.parent, runs.started, runs.ended).where(runs.ended >= start, runs.ended < end)
    for row in connection.execute(ended.where(runs.started.is_not(None))):
        found[row.channel, model_of(row.parent)]["training_s"] += max(0.0, row.ended - row.started)
    for key, size in (storage or {}).items():
        found[key]["storage_bytes"] += size
    names = MEASURED if storage is not None else tuple(name for name in MEASURED if name != "storage_bytes")
    rows = [(day, *key, *(amounts[name] for name in names)) for key, amounts in found.items()]
    add_rows(connection, cost_days, ("day", "channel", "model", *names), rows, replaced=names)


def stored(connection: Connection, model_of: Callable[[str], str]) -> dict[Key, int]:
    """Bytes that are kept now: of releases by model, each file once; of the rest by channel too."""
    found: dict[Key, int] = defaultdict(int)
    files: dict[str, dict[str, int]] = defaultdict(dict)
    for row in connection.execute(select(releases.c.name, releases.c.digest, releases.c.index_bytes)):
        files[row.name].update(_files(row.digest, bytes(row.index_bytes)))
    for model, sizes in files.items():
        found["", model] += sum(sizes.values())
    for table in (windows, head_windows):
        size = func.sum(func.length(table.c.data)).label("size")
        query = select(table.c.channel, table.c.release, size).group_by(table.c.channel, table.c.release)
        for row in connection.execute(query):
            found[row.channel, model_of(row.release)] += row.size
    size = func.sum(samples.c.bytes).label("size")
    query = select(samples.c.channel, samples.c.release, size).group_by(samples.c.channel, samples.c.release)
    for row in connection.execute(query):
        found[row.channel, model_of(row.release)] += row.size
    return dict(found)


def read(connection: Connection, first: int, last: int) -> list[tuple[int, str, str, Amounts]]:
    """(day, channel, model, amounts) of the days from ``first`` to ``last``, both included, in that order."""
    table = cost_days.c
    query = select(cost_days).where(table.day >= first, table.day <= last)
    rows = connection.execute(query.order_by(table.day, table.channel, table.model))
    names = (*ADDED, *MEASURED)
    return [(row.day, row.channel, row.model, Amounts(**{name: getattr(row, name) for name in names})) for row in rows]


@lru_cache(1024)
def _files(digest: str, index: bytes) -> Mapping[str, int]:
    return {entry.sha256: entry.size for entry in parse_index(index).entries}
