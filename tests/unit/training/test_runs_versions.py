"""Versions of retrained releases, and the life of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloud_hub.training import run_records as records
from cloud_hub.training.versions import next_version
from edgeloop.package.manifest import _NAME
from tests.doubles.new_records import new_records


@pytest.mark.parametrize(
    ("parent", "taken", "expected"),
    [
        ("1.0.0", ["1.0.0"], "1.0.0+r1"),
        ("1.0.0+r1", ["1.0.0", "1.0.0+r1"], "1.0.0+r2"),
        ("1.0.0", ["1.0.0", "1.0.0+r1", "1.0.0+r7"], "1.0.0+r8"),  # a candidate that went back keeps its number
        ("1.0.0+r9", [], "1.0.0+r1"),
        ("2", ["1.0.0+r7", "2+r1"], "2+r2"),
        ("1+rc1", ["1+rc1"], "1+rc1+r1"),
        ("1+r1+r2", ["1+r1+r2"], "1+r1+r3"),
    ],
)
def test_next_version(parent: str, taken: list[str], expected: str) -> None:
    assert next_version(parent, taken) == expected


def test_a_version_never_becomes_too_long_for_a_package() -> None:
    version = "9" * 64
    for _ in range(3):
        version = next_version(version, [version])
        assert _NAME.fullmatch(version)


def test_a_run_moves_only_as_the_table_says(tmp_path: Path) -> None:
    db = new_records(tmp_path)
    states = {state for targets in records.TRANSITIONS.values() for state in targets} | set(records.TRANSITIONS)
    assert states == {"queued", "training", "evaluating", "refused", "released", "failed", "cancelled"}
    with db.begin() as connection:
        given: dict[str, Any] = {
            "channel": "c",
            "cause": "",
            "trigger": "",
            "parent": "p",
            "alarm": None,
            "labels": 0,
            "recipe": "r",
        }
        run = records.insert(connection, **given, now=1.0)
        with pytest.raises(ValueError, match="queued and cannot become released"):
            records.move(connection, run, "released")
        for state in ("training", "evaluating", "refused"):
            records.move(connection, run, state)
        for state in states:
            with pytest.raises(records.Ended, match="is refused already"):
                records.move(connection, run, state)
        again = records.insert(connection, **given, now=2.0)
        for state in ("training", "queued", "training", "evaluating", "queued", "cancelled"):
            records.move(connection, again, state)  # interrupted twice, and then nobody wanted it any more
        records.note_data(connection, run, "d")
        alike = records.refused_alike(connection, "r", "d")
        assert alike is not None and alike.id == run
        assert records.refused_alike(connection, "r", "other") is None
        assert records.refused_alike(connection, "other", "d") is None
    db.close()
