"""The policy on the device: taken while it runs, remembered without a hub, within the limits of the device's owner."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.observing.policy import PolicyInForce
from edge_agent.observing.store import Store
from edgeloop.cascade.policy import EscalationLimits, EscalationPolicy
from edgeloop.insights.policy import KEY, InsightsPolicy, Limits
from edgeloop.protocol import ProtocolError


def _insights(store: Store, limits: Limits) -> PolicyInForce[InsightsPolicy, Limits]:
    return PolicyInForce(store, limits, InsightsPolicy, KEY)


def test_what_was_asked_for_outlives_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    policy = _insights(store, Limits(min_group=5))
    assert policy.current == InsightsPolicy(min_group=5)
    policy.take(InsightsPolicy(bytes_per_day=9000, segment_field="line").to_wire())
    assert policy.current == InsightsPolicy(bytes_per_day=9000, segment_field="line", min_group=5)
    store.close(clean=True)
    store = Store(tmp_path / "agent.db")
    again = _insights(store, Limits(bytes_per_day=4000, segments=False))
    assert again.current == InsightsPolicy(bytes_per_day=4000)
    again.limit(Limits())
    assert again.current == InsightsPolicy(bytes_per_day=9000, segment_field="line"), "the limits are never remembered"
    store.close(clean=True)


def test_one_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    policy = _insights(store, Limits())
    policy.take({"min_group": 7})
    for wrong in ({"min_group": -1}, 7, {"aspects": {}}):
        with pytest.raises(ProtocolError, match=r"policy\.insights"):
            policy.take(wrong)
    assert policy.current.min_group == 7
    store.set_note("policy/insights", b"damaged")
    assert _insights(store, Limits()).current == InsightsPolicy()
    store.close(clean=True)


def test_each_subject_has_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    insights = _insights(store, Limits())
    escalation = PolicyInForce(store, EscalationLimits(), EscalationPolicy, "escalation")
    assert not escalation.current.on
    insights.take({"min_group": 7})
    escalation.take({"mode": "async", "travels": "features"})
    assert insights.current.min_group == 7 and not escalation.current.on, "the owner lets nothing travel"
    escalation.limit(EscalationLimits(travels=("features",), per_day=10))
    assert escalation.current.on and escalation.current.per_day == 10
    with pytest.raises(ProtocolError, match="mode"):
        escalation.take({"mode": "sometimes"})
    assert escalation.current.mode == "async"
    again = PolicyInForce(store, EscalationLimits(("features",)), EscalationPolicy, "escalation")
    assert again.current == EscalationPolicy(mode="async", travels="features")
    store.close(clean=True)
