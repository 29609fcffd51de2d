"""What ``edge-agent status`` says of insights, for people."""

from __future__ import annotations

import pytest

from edge_agent.status import _insights, _noise

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


NOISE = {"epsilon": 3.0, "delta": 1e-6, "days": 1.0, "left": 24, "withheld": 0, "trouble": ""}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "epsilon 3 and delta 1e-06 in 1 days; 24 windows left"),
        (
            {"left": 0, "withheld": 1200},
            "epsilon 3 and delta 1e-06 in 1 days; 0 windows left; 1,200 left as volumes alone",
        ),
        ({"left": None, "trouble": "pip install it"}, "nothing but volumes leaves: pip install it"),
    ],
)
def test_noise_in_a_line(changes: dict[str, object], said: str) -> None:
    assert _noise({**NOISE, **changes}) == said
