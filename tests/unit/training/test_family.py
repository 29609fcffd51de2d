"""Which releases share a backbone: a new head has its parent's, a whole new network has none but its own."""

from __future__ import annotations

from typing import Any

from cloud_hub.releases import Release
from cloud_hub.training.family import family


def release(digest: str, parent: str | None, trainer: Any) -> Release:
    source = "published" if parent is None else "retrained"
    return Release(digest, "m", "1", parent, source, 0.0, 1, 1, {}, {"trainer": trainer})


def test_a_family_ends_where_another_trainer_has_made_a_network() -> None:
    head, command = {"name": "head"}, {"name": "command"}
    releases = [
        release("published", None, None),
        release("head 1", "published", head),
        release("network", "head 1", command),
        release("head 2", "network", head),
    ]
    assert family("head 1", releases) == ["published", "head 1"]
    assert family("head 2", releases) == family("network", releases) == ["network", "head 2"]
