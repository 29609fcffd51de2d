"""What a group at the identity provider stands for in this hub, as the settings write it."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_hub.access.principals import Role, limit_of


@dataclass(frozen=True)
class Grant:
    """What a value of the roles claim stands for: a role and its limits."""

    role: Role
    channels: frozenset[str] | None = None
    models: frozenset[str] | None = None


def parse_grant(text: str) -> Grant:
    """A grant as the settings write it: ``publisher``, or ``publisher channels=stable,night models=digits``.

    Raises:
        ValueError: it is none.
    """
    role, *limits = text.split()
    found: dict[str, frozenset[str] | None] = {"channels": None, "models": None}
    for limit in limits:
        name, equals, names = limit.partition("=")
        if name not in found or not equals or not all(names.split(",")):
            raise ValueError(f"{limit[:60]!r} is no limit: write channels=… or models=…, with commas between names")
        found[name] = limit_of(names.split(","))
    if role not in list(Role):
        raise ValueError(f"{role[:60]!r} is no role: viewer, operator, publisher, approver or admin")
    return Grant(Role(role), found["channels"], found["models"])
