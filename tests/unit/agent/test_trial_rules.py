"""When a device has time for a trial."""

from __future__ import annotations

import pytest

from edge_agent.trials.rules import AT_REST, Doing, TrialRules, busy
from edge_agent.updates.rules import TRANSITIONS

RULES = TrialRules(busy_per_s=2.0)


@pytest.mark.parametrize("state", sorted(TRANSITIONS))
def test_never_beside_an_update(state: str) -> None:
    reason = busy(RULES, Doing(state, "", 0.0))
    assert bool(reason) == (state not in AT_REST)
    assert state in reason or not reason


def test_not_while_the_device_holds_back_or_is_needed() -> None:
    assert busy(RULES, Doing("idle", "82 °C", 0.0)) == "the device holds back: 82 °C"
    assert busy(RULES, Doing("idle", "", 2.0)) == ""
    assert busy(RULES, Doing("committed", "", 2.5)) == "the device answers 2.5 rows a second; it is idle up to 2"
