"""Marks of a watched folder go with their files, also while the agent runs for months."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_agent.flow_settings import SOURCES, read_all
from edge_agent.flows.sources.folder import TIDY_S, FolderSource


def test_marks_of_files_that_somebody_takes_away_are_forgotten_while_it_runs(tmp_path: Path) -> None:
    inbox, clock = tmp_path / "inbox", [0.0]
    table = {"kind": "folder", "name": "door", "sinks": ["x"], "path": str(inbox), "settle_s": 0, "patterns": ["*.npy"]}
    (settings,) = read_all(SOURCES, [{**table, "after": "keep"}])
    source = FolderSource(settings, tmp_path / "state", lambda: clock[0])  # type: ignore[arg-type]
    source.open()
    for number in range(3):
        np.save(inbox / f"{number}.npy", np.zeros(3))
    for _ in range(3):
        clock[0] += 1
        item = source.next(0)
        assert item is not None
        source.done(item)
    (inbox / "0.npy").unlink()
    (inbox / "2.npy").unlink()
    clock[0] += TIDY_S
    assert source.next(0) is None
    assert [name for name, _, _ in source._marks.all()] == [b"1.npy"]
    source.close()
