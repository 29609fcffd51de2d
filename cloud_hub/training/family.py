"""Releases that share a backbone: the hub's own head trainer changes nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cloud_hub.releases import Release


def family(digest: str, releases: Iterable[Release]) -> Sequence[str]:
    """Digests of the releases that share this one's backbone, in the order that they are given."""
    known = {release.digest: release for release in releases}
    root = _root(digest, known)
    return [found for found in known if _root(found, known) == root]


def _root(digest: str, known: Mapping[str, Release]) -> str:
    """The release from which a chain of new heads has led to this one."""
    seen = set()
    while (release := known.get(digest)) and release.source == "retrained" and release.parent and digest not in seen:
        seen.add(digest)
        digest = release.parent
    return digest
