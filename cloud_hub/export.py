"""Merged windows as a Parquet file, a row for each row of the records: docs/reference/cloud-hub.md has the columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloud_hub.insights_store import Merged, correct, count_window

#: Windows that are in memory at once.
ROWS_A_GROUP = 200
COUNTS = ("predictions", "errors", "feedback", "escalations", "nonfinite")


def write_parquet(rows: Iterable[Merged], path: Path) -> int:
    """Write windows as they come; returns how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("channel", "release", "segment")),
            ("start", pa.timestamp("ms", tz="UTC")),
            ("resolution_s", pa.float64()),
            *((name, pa.int64()) for name in ("windows", *COUNTS, "correct")),
            ("counts", pa.map_(pa.string(), pa.list_(pa.int64()))),
            ("sums", pa.map_(pa.string(), pa.list_(pa.float64()))),
        ]
    )
    written, left = 0, iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := [_record(row) for row in itertools.islice(left, ROWS_A_GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema))
            written += len(group)
    return written


def _record(row: Merged) -> dict[str, Any]:
    window = row.window
    arrays = [(name, window.arrays[name]) for name in window.schema.arrays if name in window.arrays]
    return {
        "channel": row.channel,
        "release": window.release,
        "segment": window.segment,
        "start": datetime.fromtimestamp(row.start, UTC),
        "resolution_s": row.resolution_s,
        "windows": row.merged,
        **count_window(window),
        "correct": correct(window),
        "counts": [(name, array.reshape(-1).tolist()) for name, array in arrays if array.dtype.kind == "i"],
        "sums": [(name, array.reshape(-1).tolist()) for name, array in arrays if array.dtype.kind == "f"],
    }
