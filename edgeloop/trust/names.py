"""Names in a fleet's signed metadata: roles, the paths of their targets, and the order of a model's releases."""

from __future__ import annotations

import re

from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.topics import check_name
from edgeloop.records import dataclass

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
RETRAINED, CHANNELS = "retrained", "channels"
RELEASES = "releases"
"""A publishers' role is ``releases.<model>``; see `release_role`."""

TOP_LEVEL = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
OFFLINE = (ROOT, TARGETS)
"""What people sign; so do publishers for the roles of `release_role`."""
ONLINE = (SNAPSHOT, TIMESTAMP, RETRAINED, CHANNELS)
"""What the hub signs, a key each."""

Order = tuple[int, int]
"""(counter, revision): a later release of a model has the greater order."""

_COUNTER = "([1-9][0-9]{0,17})"
_RELEASE = re.compile(rf"{RELEASES}/([^/]+)/{_COUNTER}")
_RETRAINED = re.compile(rf"{RETRAINED}/([^/]+)/{_COUNTER}/{_COUNTER}")
_CHANNEL = re.compile(f"{CHANNELS}/([^/]+)")
_FILE = re.compile(rf"(?:{_COUNTER}\.)?(.+)\.json")


@dataclass(frozen=True)
class ReleasePath:
    """The path of a release among the targets.

    Attributes:
        model: name of the model.
        counter: of the publisher's release; for a retrained one, of the release that it comes from.
        revision: 0 for a publisher's release, 1 and up for retrained ones.
    """

    model: str
    counter: int
    revision: int = 0

    @property
    def order(self) -> Order:
        """Greater for a later release of the same model.

        A retrained release comes right after its base and before the publisher's next: whoever has the hub's key
        cannot outrun the publisher.
        """
        return self.counter, self.revision

    @property
    def role(self) -> str:
        """The role that answers for it."""
        return RETRAINED if self.revision else release_role(self.model)

    @property
    def base(self) -> ReleasePath:
        """The publisher's release that it comes from; itself where it is one."""
        return ReleasePath(self.model, self.counter)

    def __str__(self) -> str:
        if self.revision:
            return retrained_path(self.model, self.counter, self.revision)
        return release_path(self.model, self.counter)


def check_model(model: str) -> str:
    """A model's name that can be a part of a path.

    Raises:
        ProtocolError: it is not 1 to 64 of ``A-Z a-z 0-9 _ . -``, or dots alone.
    """
    return _check(model, "model")


def release_role(model: str) -> str:
    """The role of a model's publishers: ``releases.<model>``; raises ProtocolError."""
    return f"{RELEASES}.{check_model(model)}"


def model_of(role: str) -> str | None:
    """The model of a publishers' role; None for every other role."""
    kind, dot, model = role.partition(".")
    return check_model(model) if kind == RELEASES and dot else None


def release_path(model: str, counter: int) -> str:
    """``releases/<model>/<counter>``, the counter from 1; raises ProtocolError."""
    return f"{RELEASES}/{check_model(model)}/{_number(counter)}"


def retrained_path(model: str, counter: int, revision: int) -> str:
    """``retrained/<model>/<base counter>/<revision>``, both from 1; raises ProtocolError."""
    return f"{RETRAINED}/{check_model(model)}/{_number(counter)}/{_number(revision)}"


def channel_path(channel: str) -> str:
    """``channels/<channel>``; raises ProtocolError."""
    return f"{CHANNELS}/{_check(channel, 'channel')}"


def parse_release(path: str) -> ReleasePath:
    """Read the path of a publisher's or a retrained release.

    Raises:
        ProtocolError: it is neither.
    """
    if found := _RELEASE.fullmatch(path):
        return ReleasePath(check_model(found[1]), int(found[2]))
    if found := _RETRAINED.fullmatch(path):
        return ReleasePath(check_model(found[1]), int(found[2]), int(found[3]))
    raise ProtocolError(
        f"{path[:200]!r} is no release: {RELEASES}/<model>/<counter> or {RETRAINED}/<model>/<counter>/<revision>"
    )


def parse_channel(path: str) -> str:
    """The channel of a ``channels/<channel>``; raises ProtocolError for every other path."""
    if found := _CHANNEL.fullmatch(path):
        return _check(found[1], "channel")
    raise ProtocolError(f"{path[:200]!r} is no channel: {CHANNELS}/<channel>")


def check_role(role: str) -> str:
    """The name of a role that a fleet can have; raises ProtocolError."""
    if role not in (*TOP_LEVEL, RETRAINED, CHANNELS) and model_of(role) is None:
        raise ProtocolError(
            f"{role[:200]!r} is no role; there are {', '.join(TOP_LEVEL)}, {RETRAINED}, {CHANNELS} "
            f"and {RELEASES}.<model>"
        )
    return role


def file_name(role: str, version: int) -> str:
    """Name of a role's metadata file: ``<version>.<role>.json``, and ``timestamp.json`` alone without a version."""
    return f"{TIMESTAMP}.json" if role == TIMESTAMP else f"{_number(version)}.{check_role(role)}.json"


def parse_file(name: str) -> tuple[str, int | None]:
    """Role and version of a metadata file's name; the version is None for ``timestamp.json``.

    Raises:
        ProtocolError: it is no name that `file_name` makes.
    """
    found = _FILE.fullmatch(name)
    if found is None or (found[1] is None) != (found[2] == TIMESTAMP):
        raise ProtocolError(f"{name[:200]!r} is no metadata file: <version>.<role>.json, or {TIMESTAMP}.json")
    return check_role(found[2]), None if found[1] is None else int(found[1])


def _check(name: str, what: str) -> str:
    if not check_name(name, what).strip("."):
        raise ProtocolError(f"the {what} {name!r} is made of dots alone: it would be a folder")
    return name


def _number(value: int) -> int:
    if not 1 <= value < 10**18:
        raise ProtocolError(f"the number {value} has to be 1 to 10^18 - 1")
    return value
