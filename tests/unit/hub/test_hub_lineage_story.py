"""A lineage in words says what there is, and nothing of what there is not."""

from __future__ import annotations

from typing import Any

from cloud_hub.lineage.story import story

RELEASE = {
    "digest": "sha256:" + "1" * 64,
    "name": "digits",
    "version": "2",
    "parent": None,
    "source": "retrained",
    "created": 1.8e9,
    "size": 1000,
    "published_by": None,
}


def told(data: dict[str, Any]) -> list[str]:
    """The lines about what a run was given."""
    run = {
        "id": 7,
        "channel": "stable",
        "cause": "drift",
        "state": "released",
        "started": 1.8e9,
        "ended": 1.8e9 + 2,
        "candidate": {"trainer": "head", "data": data},
        "verdict": {"summary": "better by 0.1"},
        "reason": "",
    }
    parts = {"signed": None, "made": None, "alarm": None, "rollouts": [], "assigned": []}
    chain = [{"release": RELEASE, "run": run, **parts}]
    lineage = {"prediction": None, "chain": chain, "uses": [], "devices": 0, "successors": [], "unknown": []}
    lines = list(story(lineage))
    return [line.strip() for line in lines[lines.index("              trainer head") + 1 :]]


def test_what_says_nothing_is_left_out_at_every_depth() -> None:
    groups = {"merged": 16, "left_out": {}, "against": (), "rule": {"why": "", "of": []}}
    lines = told({"since": None, "until": 1.8e9, "labels": 0, "groups": groups, "note": None, "releases": ()})
    assert lines[:2] == ["data        from the beginning to 2027-01-15T08:00:00Z", "labels 0, groups (merged 16)"]
    assert lines[2].startswith("gate")


def test_what_was_left_out_is_told_with_its_reason() -> None:
    lines = told(
        {"groups": {"left_out": {"3": "its labels contradict the others"}}, "releases": ["sha256:" + "2" * 64]}
    )
    assert lines[1] == "groups (left out (3 its labels contradict the others))"
    assert lines[2] == "counted by sha256:222222222222…"
