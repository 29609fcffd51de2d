"""A lineage as JSON values, which the API answers and the command prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cloud_hub.lineage.chain import Journey, Lineage, Link
from cloud_hub.releases import Release


def plain(lineage: Lineage) -> dict[str, Any]:
    """The lineage as JSON values."""
    return {
        "asked": lineage.asked,
        "prediction": None if lineage.prediction is None else asdict(lineage.prediction),
        "chain": [_plain_link(link) for link in lineage.chain],
        "successors": [_plain_release(release) for release in lineage.successors],
        "uses": [asdict(use) for use in lineage.uses],
        "devices": lineage.devices,
        "unknown": list(lineage.unknown),
    }


def _plain_release(release: Release) -> dict[str, Any]:
    names = ("digest", "name", "version", "parent", "source", "created", "size", "published_by")
    return {name: getattr(release, name) for name in names}


def _plain_link(link: Link) -> dict[str, Any]:
    optional = {"signed": link.signed, "made": link.made, "run": link.run, "alarm": link.alarm}
    return {
        "release": _plain_release(link.release),
        **{name: None if value is None else asdict(value) for name, value in optional.items()},
        "rollouts": [_plain_journey(journey) for journey in link.rollouts],
        "assigned": [asdict(each) for each in link.assigned],
    }


def _plain_journey(journey: Journey) -> dict[str, Any]:
    rollout = journey.rollout
    names = ("id", "channel", "candidate", "current", "state", "started", "ended", "cause", "reason", "started_by")
    return {
        **{name: getattr(rollout, name) for name in names},
        "policy": rollout.policy.model_dump(mode="json"),
        "approvals": [asdict(approval) for approval in journey.approvals],
        "history": [asdict(entry) for entry in journey.history],
    }
