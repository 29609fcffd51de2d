"""Head statistics by groups of devices, beside the merged windows: so that a head can be made without some of them.

A device's group follows from its name, and how many there are from the model, whatever the fleet: what is kept does not
grow with the number of devices, and nothing is sent for it that is not sent anyway.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, func, select

from cloud_hub.records.tables import head_windows
from edgeloop.insights import Window, WindowSchema
from edgeloop.insights.aspects.head import PARTS, SHARES

#: So many that in a fleet of 20 most devices have a group of their own, and one that lies takes few others with it.
MOST_GROUPS = 64
#: With fewer, none could be told from the others.
FEWEST_GROUPS = 4
#: What the head statistics of one interval may take: 64 groups up to 340 features, 4 from 1,400.
INTERVAL_BYTES = 64 << 20
#: What is kept: with the counts, since labels in the statistics cannot be more than were given.
ARRAYS = ("counts", *(f"head_{share}_{part}" for share in SHARES for part in PARTS))


def groups(schema: WindowSchema) -> tuple[str, ...]:
    """The groups of a model's devices, "0", "1", …: fewer where head statistics are large."""
    size = 8 * sum(schema.arrays[name].size for name in ARRAYS)
    return tuple(str(n) for n in range(min(max(INTERVAL_BYTES // max(size, 1), FEWEST_GROUPS), MOST_GROUPS)))


def group_of(device: str, schema: WindowSchema) -> str:
    """The group of a device, the same on every hub."""
    digest = hashlib.sha256(device.encode()).digest()
    return str(int.from_bytes(digest[:8], "big") % len(groups(schema)))


def labels_of(window: Window) -> Window | None:
    """A device's window with its head statistics alone; None when it has none."""
    if not any(name in window.arrays and window.arrays[name].any() for name in ARRAYS[1:]):
        return None
    return window.only(ARRAYS).without_segment()


def labels(connection: Connection, channel: str, releases: Sequence[str], since: float | None) -> int:
    """Labels in windows with head statistics, without reading any; arguments as in :func:`intervals`."""
    query = select(func.coalesce(func.sum(head_windows.c.feedback), 0)).where(*of(channel, releases, since))
    return int(connection.execute(query).scalar_one())


def newest(
    connection: Connection, channel: str, releases: Sequence[str], since: float | None, until: float
) -> float | None:
    """The start of the newest interval with head statistics, unix seconds; None for none. As :func:`intervals`."""
    query = select(func.max(head_windows.c.interval_start)).where(*of(channel, releases, since, until))
    found: float | None = connection.execute(query).scalar_one()
    return found


def intervals(
    connection: Connection,
    schema: WindowSchema,
    channel: str,
    releases: Sequence[str],
    group: str,
    since: float | None,
    until: float,
) -> Iterator[tuple[float, Window]]:
    """(interval start, head statistics) of one group, in order; a hub need not hold more of them than one.

    Args:
        connection: to the records.
        schema: of the releases' windows.
        channel: the channel.
        releases: digests.
        group: see :func:`group_of`.
        since: first interval start, unix seconds; None for all.
        until: interval start that is no longer taken.
    """
    table = head_windows.c
    query = select(table.interval_start, table.data).where(
        table.device_group == group, *of(channel, releases, since, until)
    )
    for start, data in connection.execute(query.order_by(table.interval_start, table.release, table.resolution_s)):
        yield start, Window.from_bytes(data, schema)


def of(
    channel: str, releases: Sequence[str], since: float | None, until: float = math.inf
) -> list[ColumnElement[bool]]:
    """The condition of their rows; arguments as in :func:`intervals`."""
    table = head_windows.c
    found = [table.channel == channel, table.release.in_(releases), table.interval_start < until]
    return found if since is None else [*found, table.interval_start >= since]
