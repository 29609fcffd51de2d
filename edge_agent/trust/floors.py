"""Versions of metadata never go back, whatever becomes of python-tuf's cache. Pure: what was seen, what was found.

A floor holds for the keys that a role had. Where people have given it others, what was signed by the old ones counts no
more: that is how a fleet gets out of a fast-forward attack, in which a thief has signed the greatest version there is.
Only what was read and verified makes a floor; a number that a snapshot lists makes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.trust.asking import Role
from edgeloop.trust.names import ROOT

Floors = Mapping[str, Mapping[str, Any]]
"""Role → ``version`` and ``keyids``, as it is stored."""


def gone_back(floors: Floors, found: Mapping[str, Role]) -> str:
    """What is older than what was seen before, as a sentence; or ""."""
    for name, floor in floors.items():
        role = found.get(name)
        if role is None or (name != ROOT and sorted(floor["keyids"]) != sorted(role.keyids)):
            continue  # no such role any more, or other keys: a root that was verified says so
        version = role.listed if role.version is None else role.version
        if version is None:
            return f"the metadata of {name} is gone; version {floor['version']} was seen before"
        if version < floor["version"]:
            return f"the metadata of {name} has version {version}; version {floor['version']} was seen before"
    return ""


def raised(floors: Floors, found: Mapping[str, Role]) -> dict[str, dict[str, Any]]:
    """The floors after what was found; it has not gone back."""
    seen = {
        name: {"version": role.version, "keyids": list(role.keyids)}
        for name, role in found.items()
        if role.version is not None
    }
    return {**{name: dict(floor) for name, floor in floors.items()}, **seen}
