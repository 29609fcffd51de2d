"""The policy of windows: read strictly, kept whole, and never loosened by a device's own limits."""

from __future__ import annotations

from typing import Any

import pytest

from edgeloop.insights.policy import ALWAYS, DriftRule, InsightsPolicy, Limits
from edgeloop.insights.privacy.rule import PrivacyRule
from edgeloop.protocol import ProtocolError


def test_an_empty_one_is_the_default() -> None:
    assert InsightsPolicy.from_wire({}) == InsightsPolicy()
    assert InsightsPolicy().wants("anything")


def test_it_survives_the_wire_with_the_fields_of_a_newer_hub() -> None:
    policy = InsightsPolicy(
        aspects=("confidence", "head"),
        bytes_per_day=150_000,
        segment_field="camera",
        segment_values=("north", "south gate"),
        min_group=20,
        audit_share=0.001,
        drift=DriftRule(alpha=0.01, consecutive=3),
        privacy=PrivacyRule(epsilon=1.0),
    )
    assert InsightsPolicy.from_wire(policy.to_wire()) == policy
    newer: dict[str, Any] = {**policy.to_wire(), "colour": "green"}
    newer["drift"]["memory"] = 7
    assert InsightsPolicy.from_wire(newer).to_wire() == newer


@pytest.mark.parametrize(
    "wire",
    [
        7,
        {"aspects": "confidence"},
        {"aspects": [1]},
        {"bytes_per_day": 10},
        {"bytes_per_day": 1.5e5},
        {"segment_field": ""},
        {"segment_field": "a\nb"},
        {"segment_values": ["x"] * 9},
        {"segment_values": ["ä"]},
        {"segment_values": [" padded"]},
        {"segment_values": ["x" * 65]},
        {"min_group": -1},
        {"audit_share": 1.1},
        {"audit_share": True},
        {"drift": {"alpha": 0.7}},
        {"drift": {"consecutive": 0}},
        {"privacy": []},
        {"privacy": {"epsilon": 0.0}},
        {"privacy": {"delta": 0.1}},
    ],
)
def test_what_is_out_of_its_range_is_refused(wire: Any) -> None:
    with pytest.raises(ProtocolError):
        InsightsPolicy.from_wire(wire)


def test_counts_and_classes_are_always_wanted() -> None:
    policy = InsightsPolicy(aspects=("latency",))
    assert [name for name in (*ALWAYS, "latency", "head") if policy.wants(name)] == [*ALWAYS, "latency"]


def test_the_owner_of_a_device_can_only_ask_for_less() -> None:
    asked = InsightsPolicy(aspects=("latency", "head"), bytes_per_day=5000, segment_field="camera", min_group=10)
    assert asked.within(Limits()) == asked
    strict = asked.within(Limits(("head", "moments"), 2000, 50, segments=False))
    assert (strict.aspects, strict.bytes_per_day, strict.segment_field, strict.min_group) == (("head",), 2000, None, 50)
    loose = asked.within(Limits(("latency", "head", "moments"), 9000, 1))
    assert loose == asked
    assert InsightsPolicy().within(Limits(("head",), 2000)).aspects == ("head",)
    assert InsightsPolicy().within(Limits(("head",), 2000)).bytes_per_day == 2000
    noisy = Limits(privacy=PrivacyRule(epsilon=1.0))
    assert InsightsPolicy(privacy=PrivacyRule(epsilon=3.0)).within(noisy).privacy == noisy.privacy
    assert InsightsPolicy().within(noisy).privacy == noisy.privacy
