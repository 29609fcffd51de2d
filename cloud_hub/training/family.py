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
    while (release := known.get(digest)) and _has_its_parents(release) and release.parent and digest not in seen:
        seen.add(digest)
        digest = release.parent
    return digest


def _has_its_parents(release: Release) -> bool:
    """Whether a release has its parent's backbone; what another trainer has made has one of its own."""
    trainer = release.lineage.get("trainer")
    return release.source == "retrained" and (not isinstance(trainer, Mapping) or trainer.get("name") == "head")
