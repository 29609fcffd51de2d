"""What ``edge-agent status`` says of insights, for people."""

from __future__ import annotations

import pytest

from edge_agent.status import _insights

QUIET = {"bytes_today": 1234, "bytes_per_day": None, "gives_up": "", "replaying": False}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "1,234 bytes today"),
        ({"bytes_per_day": 150_000}, "1,234 bytes today of 150,000"),
        ({"gives_up": "2 bins as one"}, "1,234 bytes today; no room for all of it: 2 bins as one"),
        ({"replaying": True}, "1,234 bytes today; a backlog of 7 windows leaves"),
    ],
)
def test_insights_in_a_line(changes: dict[str, object], said: str) -> None:
    assert _insights({**QUIET, **changes}, 7) == said
